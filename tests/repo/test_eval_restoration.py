"""`tools/eval_restoration.py`: its arms, its pairs, and what it says of their differences."""

from __future__ import annotations

import json
from pathlib import Path

import eval_restoration
import numpy as np
import pytest
import soundfile
import torch

from speechadapt.core.files import write_lines
from speechadapt.models.restorer_folder import load_restorer
from speechadapt.models.restorer_tiny import write_tiny_restorer

RATE = 16000


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Write a pack of two mixtures and one pair."""
    random = np.random.default_rng(0)
    swell = np.abs(np.sin(np.arange(RATE) / RATE * 6))

    def save(name: str, noise: float) -> str:
        signal = 0.2 * swell * np.sin(np.arange(RATE) / 5) + noise * random.standard_normal(RATE)
        path = tmp_path / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, signal, RATE)
        return f"audio/{name}.wav"

    clean, noisy = save("clean", 0.0), save("noisy", 0.05)

    def row(name: str, audio: str, **more: str) -> dict:
        return {"id": name, "audio": audio, "split": "test", "duration": 1.0, **more}

    mixtures = [
        row(f"m{n}", noisy, lang=lang, clean_audio=clean) for n, lang in enumerate(("en", "de"))
    ]
    pairs = [row("p-clean", clean), row("p-noisy", noisy, clean_id="p-clean")]
    (tmp_path / "manifests").mkdir()
    write_lines(tmp_path / "manifests" / "mixtures.jsonl", mixtures)
    write_lines(tmp_path / "manifests" / "voicebank_pairs.jsonl", pairs)
    return tmp_path


def test_every_arm_is_scored_and_compared(pack: Path, capsys) -> None:
    model = write_tiny_restorer(pack / "model")
    output = pack / "found.json"
    words = ["--model", str(model), "--data", str(pack), "--split", "test", "--score"]
    assert eval_restoration.main([*words, "--output", str(output)]) == 0
    groups = json.loads(output.read_text())["groups"]
    assert {name: found["gate"]["items"] for name, found in groups.items()} == {
        "mixtures (en)": 1,
        "mixtures (de)": 1,
        "voicebank_pairs": 1,
        "all": 3,
    }
    change = groups["all"]["restored against gate"]["scores"]["lsd_db"]
    assert change["change"]["mean"] == pytest.approx(
        change["degraded"]["mean"] - change["before"]["mean"]
    )
    assert groups["all"]["gate"]["scores"]["lsd_db"]["change"]["mean"] < 0.0
    assert "| all (3) | oracle |" in capsys.readouterr().out


def test_words_and_speakers_are_judged_in_every_arm(pack: Path, monkeypatch, capsys) -> None:
    from speechadapt.models.recogniser import Recogniser
    from speechadapt.models.transcript import Transcript

    class Loud(Recogniser):
        """Hears one word, and another one where there is noise."""

        def __init__(self) -> None:
            pass

        def transcribe(self, audio, sample_rate=None, *, batch_size=8) -> Transcript:
            quiet = np.abs(audio[:400]).mean() < 0.02
            return Transcript("yes" if quiet else "yes what", None, (), 1.0)

    class Voice:
        def embed(self, waveform: np.ndarray) -> np.ndarray:
            return np.array([1.0, 0.0], dtype=np.float32)

        def fingerprint(self) -> dict[str, object]:
            return {}

    monkeypatch.setattr(eval_restoration, "load", lambda name: Loud())
    monkeypatch.setattr(eval_restoration, "load_speaker_model", lambda name: Voice())
    output = pack / "found.json"
    words = ["--model", str(write_tiny_restorer(pack / "model")), "--data", str(pack)]
    asked = [*words, "--split", "test", "--most", "1", "--score", "words", "speaker"]
    asked += ["--signal", "masked"]
    assert eval_restoration.main([*asked, "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["groups"]["all"]["gate"]["scores"]["speaker"]["degraded"]["mean"] == 1.0
    claims = {one["claim"]: one["value"] for one in found["figures"]}
    assert claims["restored_speaker"] == 0.0
    change = found["groups"]["all"]["restored against gate"]["scores"]["lsd_db"]["change"]
    assert claims["restored_lsd_gate"] == change["mean"]
    assert "restored_bak" not in claims  # nobody judged it
    sets = {one["set"]: one for one in found["words"]}
    assert {f"all: {arm}" for arm in eval_restoration.ARMS} <= set(sets)
    assert sets["all: degraded"]["words"]["insertions"] == 1
    assert "all: degraded" in capsys.readouterr().out


def test_the_oracle_hears_features_through_no_adapter(tmp_path: Path) -> None:
    folder = write_tiny_restorer(tmp_path / "model")
    restorer = load_restorer(folder)
    oracle = eval_restoration.oracle_of(folder, restorer.vocoder)
    heard = [torch.from_numpy(np.random.default_rng(0).standard_normal(8000).astype(np.float32))]
    untouched, _ = oracle.cleaner.encode(heard)
    assert not torch.equal(untouched, restorer.cleaner.encode(heard)[0])
    features, lengths = restorer.cleaner.encoder.extract(heard)
    assert torch.equal(untouched, restorer.cleaner.targets(features, lengths))


def test_a_gate_keeps_speech_and_turns_noise_down() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    tone = noise.copy()
    tone[RATE // 2 :] += np.sin(np.arange(RATE // 2) / 5).astype(np.float32)
    made = eval_restoration.gated(tone)
    assert len(made) == RATE
    assert np.abs(made[: RATE // 2 - 600]).mean() < 0.7 * np.abs(noise[: RATE // 2 - 600]).mean()
    assert np.abs(made[RATE // 2 + 600 :]).mean() > 0.8 * np.abs(tone[RATE // 2 + 600 :]).mean()

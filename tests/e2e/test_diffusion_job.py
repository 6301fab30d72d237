"""`speechadapt transcribe` with a masked-diffusion decoder: its flags, its json, its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.encoders.tiny import write_tiny
from speechadapt.models import build
from tests.command import call
from tests.e2e.fake_recogniser import write_tones


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundled models whose `mini-diffusion` hears with a random encoder."""
    folder = tmp_path_factory.mktemp("shelf")
    ears = write_tiny("w2v_bert", folder / "ears")
    vocabulary = tiny_vocabulary()
    heard = Heard(str(ears), fingerprint_folder(ears))
    network = tiny_network(vocabulary, 32)
    save_folder(folder / "mini-diffusion", network, vocabulary, heard, torch.float32)
    return folder


def transcribe(source: Path, output: Path, *more: str) -> int:
    return call("transcribe", source, "-o", output, "--decoder", "diffusion", *more)


def results(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(output.rglob("clip*.json"))]


def test_the_decoder_s_flags_reach_it_and_candidates_come_on_request(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_PRETRAINED", shelf)
    write_tones(tmp_path / "in", 2)
    flags = ("--no-vad", "--num-candidates", "3", "--num-steps", "2", "--select", "rover")
    assert transcribe(tmp_path / "in", tmp_path / "plain", *flags) == 0
    more = (*flags, "--keep-candidates", "--word-timestamps")
    assert transcribe(tmp_path / "in", tmp_path / "full", *more) == 0
    plain, full = results(tmp_path / "plain"), results(tmp_path / "full")
    assert len(plain) == len(full) == 2
    assert [one["text"] for one in plain] == [one["text"] for one in full]
    assert '"candidates"' not in json.dumps(plain)
    for one in full:
        (piece,) = one["segments"]
        assert len(piece["candidates"]) == 3
        assert set(piece["candidates"][0]) == {"text", "confidence", "expected_errors"}
        assert piece["words"]
        assert all(0.0 <= word["probability"] <= 1.0 for word in piece["words"])
        assert piece["flags"]  # random weights are doubted


def test_noise_and_too_short_clips_give_no_text_without_a_flag(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_PRETRAINED", shelf)
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).normal(0.0, 0.05, 30 * 16000)
    for name, samples in (("noise", noise), ("short", noise[:1600])):
        soundfile.write(tmp_path / "in" / f"clip-{name}.wav", samples, 16000)
    assert transcribe(tmp_path / "in", tmp_path / "out", "--num-candidates", "2") == 0
    found = results(tmp_path / "out")
    assert len(found) == 2
    assert all(one["text"] == "" or one["flags"] for one in found)


def test_without_the_bundled_model_it_is_said_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "_PRETRAINED", tmp_path / "empty")
    write_tones(tmp_path / "in", 1)
    assert transcribe(tmp_path / "in", tmp_path / "out") == 2
    assert "'mini-diffusion', which that means, did not come" in capsys.readouterr().err

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from speechadapt.audio import speech_probability
from speechadapt.audio.io import decode_audio
from speechadapt.audio.speech_probability import WINDOW, EnergyScorer, SileroScorer
from speechadapt.core.errors import CheckpointError

CLIPS = (
    "connected-en07",
    "orders-458e9432-c9c7",
    "fsdd-7_yweweler_3",
    "librispeech-2414-128291-0006",
)


@pytest.fixture(scope="module")
def scorer() -> SileroScorer:
    return SileroScorer()


@pytest.fixture(scope="module")
def clips(demo_clips: Path) -> list[np.ndarray]:
    """Real clips, cut to whole windows."""
    decoded = [decode_audio(demo_clips / f"{name}.flac", 16000).waveform for name in CLIPS]
    return [each[: len(each) // WINDOW * WINDOW] for each in decoded]


def test_scores_equal_those_of_the_network_in_the_wheel(
    scorer: SileroScorer, clips: list[np.ndarray]
) -> None:
    found = importlib.util.find_spec("silero_vad")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.load(str(path))
    for clip in clips:
        network.reset_states()
        with torch.no_grad():
            expected = [
                network(torch.from_numpy(window)[None], 16000).item()
                for window in clip.reshape(-1, WINDOW)
            ]
        scores, _ = scorer.score(clip, scorer.start())
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_real_speech_scores_high_and_faint_noise_low(
    scorer: SileroScorer, clips: list[np.ndarray]
) -> None:
    noise = 1e-3 * np.random.default_rng(0).standard_normal(64 * WINDOW).astype(np.float32)
    assert all(scorer.score(clip, scorer.start())[0].max() > 0.9 for clip in clips)
    assert scorer.score(noise, scorer.start())[0].max() < 0.3


@pytest.mark.parametrize("kind", [SileroScorer, EnergyScorer])
def test_state_carries_over_from_call_to_call(
    kind: type[SileroScorer | EnergyScorer], clips: list[np.ndarray]
) -> None:
    made = kind()
    whole, _ = made.score(clips[1], made.start())
    state, parts = made.start(), []
    for start in range(0, len(clips[1]), 7 * WINDOW):
        scores, state = made.score(clips[1][start : start + 7 * WINDOW], state)
        parts.append(scores)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


@pytest.mark.parametrize("kind", [SileroScorer, EnergyScorer])
def test_a_batch_scores_as_its_clips_do(
    kind: type[SileroScorer | EnergyScorer], clips: list[np.ndarray]
) -> None:
    made = kind()
    batch = made.score_batch([*clips, np.zeros(0, dtype=np.float32)])
    assert len(batch[-1]) == 0
    for clip, scores in zip(clips, batch, strict=False):
        np.testing.assert_allclose(scores, made.score(clip, made.start())[0], atol=1e-5)


def test_a_batch_of_nothing_scores_nothing(scorer: SileroScorer) -> None:
    assert scorer.score_batch([]) == []
    assert [len(each) for each in scorer.score_batch([np.zeros(0, dtype=np.float32)])] == [0]


def test_energy_hears_a_burst_over_steady_noise() -> None:
    noise = 1e-3 * np.random.default_rng(0).standard_normal(100 * WINDOW).astype(np.float32)
    noise[40 * WINDOW : 50 * WINDOW] *= 50
    scorer = EnergyScorer()
    scores, _ = scorer.score(noise, scorer.start())
    assert scores[40:50].min() > 0.5
    assert max(scores[:40].max(), scores[50:].max()) < 0.35


def test_the_wheels_package_is_not_imported_for_its_weights() -> None:
    script = (
        "import sys, torch; torch.set_num_threads(2);"
        "from speechadapt.audio.speech_probability import SileroScorer; SileroScorer();"
        "sys.exit('silero_vad' in sys.modules or torch.get_num_threads() != 2)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_weights_of_another_layout_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_probability, "_silero_weights", lambda: {"other": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="another network than the one known here"):
        SileroScorer()


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="silero-vad is not installed: pip install"):
        SileroScorer()

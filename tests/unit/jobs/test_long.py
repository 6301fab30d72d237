from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.decoders.base import Hypothesis
from speechadapt.jobs.long import transcribe_recording
from speechadapt.jobs.plan import Limits, PlanItem

RATE = 16000
LIMITS = Limits(batch_size=4, batch_s=6.0, window_s=2.0)


class Counter:
    sample_rate = RATE
    window_s = 2.0
    language = None

    def __init__(self, bad: int = -1) -> None:
        self.sizes: list[int] = []
        self.bad = bad

    def fingerprint(self) -> str:
        return "counter"

    def decode_batch(
        self, waveforms: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        self.sizes.append(len(waveforms))
        self.languages = set(languages or ())
        if len(self.sizes) == self.bad:
            raise MemoryError
        return [Hypothesis(f"{len(waveform)}") for waveform in waveforms]


def make_item(path: Path, samples: np.ndarray) -> PlanItem:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return PlanItem(path.name, path.name, str(path), path.stem, long=True)


@pytest.fixture
def noise() -> np.ndarray:
    made = np.random.default_rng(0).normal(0, 0.1, 15 * RATE)
    return made.astype(np.float32)


def test_every_piece_is_of_the_recordings_language(tmp_path, noise):
    recogniser = Counter()
    item = replace(make_item(tmp_path / "a.wav", noise), lang="de")
    transcribe_recording(item, recogniser, None, Limits(window_s=2.0))
    assert recogniser.languages == {"de"}


def test_pieces_cover_the_recording_in_batches_of_bounded_seconds(tmp_path, noise):
    recogniser = Counter()
    found = transcribe_recording(make_item(tmp_path / "a.wav", noise), recogniser, None, LIMITS)
    assert found.problem is None
    assert found.audio_s == 15.0
    assert found.pieces[0].start_s == 0.0
    assert found.pieces[-1].end_s == 15.0
    assert sum(int(piece.hypothesis.text) for piece in found.pieces) == len(noise)
    assert max(recogniser.sizes) == 3


def test_silent_pieces_are_not_shown_to_the_model(tmp_path, noise):
    noise[: 8 * RATE] = 0.0
    recogniser = Counter()
    found = transcribe_recording(make_item(tmp_path / "a.wav", noise), recogniser, None, LIMITS)
    assert sum(recogniser.sizes) == len(found.pieces) < 10
    assert found.pieces[0].start_s >= 6.0


def test_a_sample_that_is_not_finite_takes_all_text_away(tmp_path, noise):
    noise[-100] = np.inf
    found = transcribe_recording(make_item(tmp_path / "a.wav", noise), Counter(), None, LIMITS)
    assert found.problem is not None
    assert found.problem.reason == "NONFINITE"
    assert found.pieces == []


def test_a_piece_the_model_fails_on_leaves_the_others_and_names_its_time(tmp_path, noise):
    item = make_item(tmp_path / "a.wav", noise[: 2 * RATE])
    found = transcribe_recording(item, Counter(bad=1), None, LIMITS)
    assert found.problem is not None
    assert found.problem.reason == "OOM"
    assert found.problem.message.startswith("0.0 s to 2.0 s")
    assert [piece.hypothesis for piece in found.pieces] == [None]


def test_a_recording_that_stops_early_is_partial(tmp_path, noise):
    item = make_item(tmp_path / "a.wav", noise)
    path = Path(item.path)
    path.write_bytes(path.read_bytes()[: -20 * RATE])
    found = transcribe_recording(item, Counter(), None, LIMITS)
    assert found.problem is not None
    assert found.problem.reason == "PARTIAL"
    assert sum(int(piece.hypothesis.text) for piece in found.pieces) == 10 * RATE

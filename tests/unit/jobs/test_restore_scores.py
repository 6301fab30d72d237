"""Scores of a restoration: DNSMOS changes, speaker cosines, words before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechadapt.decoders.base import Hypothesis
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.restore_scores import Judges, measure

RATE = 16000


class Level:
    """A voice is its level and its sign."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        size = float(np.abs(waveform).mean())
        return np.array([np.cos(size), np.sin(size)], dtype=np.float32)

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "level"}


class Counter:
    """Hears one word a second, louder ones in capitals."""

    sample_rate, window_s, language = RATE, None, None

    def fingerprint(self) -> str:
        return "counter"

    def decode_batch(
        self, waveforms: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        return [
            Hypothesis(
                " ".join(
                    "loud" if np.abs(part).max() > 0.3 else "soft"
                    for part in np.array_split(one, max(1, len(one) // RATE))
                )
            )
            for one in waveforms
        ]


def save(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PlanItem, Path]:
    random = np.random.default_rng(0)
    before = 0.1 * np.clip(random.standard_normal(4 * RATE), -2, 2)
    after = before.copy()
    after[:RATE] *= 4
    path = save(tmp_path / "before.wav", before)
    return PlanItem("a", "a", str(path), "a"), save(tmp_path / "after.wav", after)


def test_nothing_is_read_where_nobody_measures(tmp_path: Path):
    verdict = measure(PlanItem("a", "a", "/nowhere", "a"), tmp_path, Judges(), "verbatim")
    assert (verdict.values, verdict.shown, verdict.before) == ({}, {}, None)


def test_words_before_are_the_reference_of_words_after(pair):
    verdict = measure(*pair, Judges(words=Counter()), "verbatim")
    assert verdict.before == "soft soft soft soft"
    assert verdict.after == "loud soft soft soft"
    assert verdict.values["wer"] == 0.25
    assert verdict.shown == {"wer": 0.25, "cer": verdict.values["cer"]}


def test_where_no_words_were_there_is_no_rate(pair, tmp_path: Path):
    class Deaf(Counter):
        def decode_batch(self, waveforms, languages=None):
            return [Hypothesis("") for _ in waveforms]

    verdict = measure(*pair, Judges(words=Deaf()), "verbatim")
    assert (verdict.values["wer"], verdict.values["cer"]) == (None, None)
    assert (verdict.before, verdict.after) == ("", "")


def test_a_speaker_is_compared_over_the_whole_recording(pair, tmp_path: Path):
    item, restored = pair
    verdict = measure(item, restored, Judges(speaker=Level()), "verbatim")
    assert 0.98 < verdict.values["speaker"] < 1.0
    same = measure(item, Path(item.path), Judges(speaker=Level()), "verbatim")
    assert same.values["speaker"] == 1.0
    brief = save(tmp_path / "brief.wav", np.full(4000, 0.1))
    tiny = PlanItem("b", "b", str(brief), "b")
    assert measure(tiny, brief, Judges(speaker=Level()), "verbatim").values["speaker"] is None


def test_dnsmos_is_a_change_weighted_by_length(pair, monkeypatch):
    def opinion(samples: np.ndarray, rate: int) -> dict[str, float | None]:
        return {"dnsmos_ovrl": 10 * float(np.abs(samples).mean()), "dnsmos_bak": None}

    monkeypatch.setattr("speechadapt.jobs.restore_scores.dnsmos", opinion)
    verdict = measure(*pair, Judges(dnsmos=True), "verbatim")
    shown = verdict.shown["dnsmos_ovrl"]
    assert verdict.values["dnsmos"] == pytest.approx(shown["after"] - shown["before"], abs=1e-4)
    assert shown["after"] == pytest.approx(1.75 * shown["before"], rel=0.05)
    assert verdict.shown["dnsmos_bak"] == {"before": None, "after": None}
    assert verdict.values["dnsmos_bak"] is None


def test_long_recordings_are_heard_in_stretches(tmp_path: Path):
    random = np.random.default_rng(0)
    path = save(tmp_path / "long.wav", 0.1 * random.standard_normal(50 * RATE))
    lengths: list[int] = []

    class Watched(Counter):
        def decode_batch(self, waveforms, languages=None):
            lengths.extend(len(one) for one in waveforms)
            return [Hypothesis("x") for _ in waveforms]

    measure(PlanItem("a", "a", str(path), "a"), path, Judges(words=Watched()), "verbatim")
    assert max(lengths) <= 20 * RATE
    assert sum(lengths[::2]) == sum(lengths[1::2]) == 50 * RATE


def test_no_stretch_is_longer_than_the_judge_can_hear(tmp_path: Path):
    path = save(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(25 * RATE))
    lengths: list[int] = []

    class Narrow(Counter):
        window_s = 10.0

        def decode_batch(self, waveforms, languages=None):
            lengths.extend(len(one) for one in waveforms)
            return [Hypothesis("x") for _ in waveforms]

    measure(PlanItem("a", "a", str(path), "a"), path, Judges(words=Narrow()), "verbatim")
    assert max(lengths) <= 10 * RATE


def test_other_judges_have_another_fingerprint():
    assert Judges().fingerprint() != Judges(speaker=Level()).fingerprint()
    assert not Judges().any
    assert Judges(dnsmos=True).any

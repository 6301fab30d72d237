from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import ConfigError, JobError
from speechadapt.decoders.base import Hypothesis
from speechadapt.engines.base import Unit
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Ledger
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.run import Assignment
from speechadapt.jobs.worker import TranscribeWorker, WorkerSetup

RATE = 16000


class Loudness:
    sample_rate = RATE
    window_s = 2.0
    language = "en"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.languages: list[str | None] = []

    def fingerprint(self) -> str:
        return "loudness"

    def decode_batch(
        self, waveforms: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Hypothesis]:
        self.sizes.append(len(waveforms))
        self.languages += languages or []
        return [Hypothesis(f"{np.abs(waveform).max():.1f}") for waveform in waveforms]


@pytest.fixture
def items(tmp_path: Path) -> tuple[PlanItem, ...]:
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(RATE, 0.1 * (number + 1)), RATE, subtype="FLOAT")
        made.append(PlanItem(str(number), path.name, str(path), str(number), key="k"))
    return tuple(made)


@pytest.fixture
def worker(tmp_path: Path) -> TranscribeWorker:
    options = TranscribeOptions(output=str(tmp_path / "out"), vad=False)
    setup = WorkerSetup(options, Limits(window_s=2.0), "1-of-1")
    return TranscribeWorker(setup, Loudness(), 0, locked=True)


def work(worker: TranscribeWorker, assignment: Assignment, attempt: int = 1):
    unit = Unit(0, assignment, attempt=attempt)
    return worker.process(unit, worker.prepare(unit))


def lines(tmp_path: Path) -> dict[str, int]:
    ledger = Ledger(tmp_path / "out/.speechadapt/journal")
    return {name: entry.attempts for name, entry in ledger.entries.items()}


def test_a_batch_is_decoded_whole_and_only_what_is_missing_is_written(worker, items, tmp_path):
    result = work(worker, Assignment(0, items, frozenset({"1"})))
    assert worker._recogniser.sizes == [3]
    assert [(done.id, done.status) for done in result.items] == [("1", "ok")]
    assert (tmp_path / "out/1.txt").read_text() == "0.2\n"
    assert not (tmp_path / "out/0.txt").exists()
    assert lines(tmp_path) == {"1": 1}


def test_the_language_of_each_row_reaches_the_model(worker, items):
    spoken = [
        replace(item, lang=lang) for item, lang in zip(items, ("de", None, "fr"), strict=True)
    ]
    work(worker, Assignment(0, tuple(spoken), frozenset(item.id for item in spoken)))
    assert worker._recogniser.languages == ["de", None, "fr"]


def test_a_batch_begun_again_leaves_alone_what_its_dead_worker_finished(worker, items, tmp_path):
    todo = frozenset({"0", "1", "2"})
    work(worker, Assignment(0, items, frozenset({"0"})))
    result = work(worker, Assignment(0, items, todo), attempt=2)
    assert {done.id for done in result.items} == todo
    ledger = Ledger(tmp_path / "out/.speechadapt/journal")
    assert ledger.lines == 3
    assert not ledger.repeated


def test_attempts_go_on_from_those_before(worker, items, tmp_path):
    work(worker, Assignment(0, items[:1], frozenset({"0"}), attempts={"0": 2}))
    assert lines(tmp_path) == {"0": 3}


def test_a_clip_that_turns_out_long_is_cut(worker, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(5 * RATE, 0.3), RATE, subtype="FLOAT")
    item = PlanItem("long", "long.wav", str(path), "long", key="k", header_s=1.0)
    result = work(worker, Assignment(0, (item,), frozenset({"long"})))
    assert result.items[0].audio_s == 5.0
    assert (tmp_path / "out/long.txt").read_text().splitlines() == ["0.3"] * 3


def test_only_the_first_batch_with_sound_counts_as_warm_up(worker, items):
    first = work(worker, Assignment(0, items, frozenset({"0"})))
    second = work(worker, Assignment(0, items, frozenset({"1"})))
    assert (first.first, second.first) == (True, False)
    assert first.audio_s == second.audio_s == 3.0


def test_a_worker_process_holds_the_lock_that_a_later_driver_waits_for(worker, tmp_path):
    folder = JobFolder(tmp_path / "out")
    with pytest.raises(JobError, match="workers-1-of-1"):
        folder.lock("workers-1-of-1").__enter__()
    worker.close()
    folder.wait_for_orphans("1-of-1")
    folder.wait_for_orphans(None)


def test_voice_activity_at_another_rate_is_refused(tmp_path):
    class Narrow(Loudness):
        sample_rate = 8000

    setup = WorkerSetup(TranscribeOptions(output=str(tmp_path)), Limits(), "1-of-1")
    with pytest.raises(ConfigError, match="give --no-vad"):
        TranscribeWorker(setup, Narrow(), 0)

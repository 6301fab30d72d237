"""The worker: rows, flags, the gate's verdict, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.engines.base import Unit
from speechadapt.jobs.job_worker import WorkerSetup
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.plan import Limits, PlanItem
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.jobs.restore_scores import Judges, Verdict
from speechadapt.jobs.restore_worker import RestoreModel, RestoreWorker, output_name
from speechadapt.jobs.run import Assignment


class Half:
    input_rate = 16000

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def fingerprint(self) -> str:
        return "half"

    def channel(self, blocks: Iterable[np.ndarray], length, config) -> Iterator[np.ndarray]:
        if self.error is not None:
            raise self.error
        for block in blocks:
            yield block * np.float32(0.5)


@pytest.fixture
def item(tmp_path: Path) -> PlanItem:
    soundfile.write(tmp_path / "a.wav", np.tile([0.4, -0.4], 4000), 16000, subtype="FLOAT")
    return PlanItem("a", "a.wav", str(tmp_path / "a.wav"), "deep/a", key="k", text="one two")


def work(tmp_path: Path, item: PlanItem, error: Exception | None = None, **options) -> Record:
    asked = RestoreOptions(output=str(tmp_path / "out"), **options)
    setup = WorkerSetup(asked, Limits(batch_size=1), "1-of-1")
    worker = RestoreWorker(setup, RestoreModel(Half(error), Judges()), 0)
    unit = Unit(0, Assignment(0, (item,), frozenset({item.id})))
    worker.process(unit, worker.prepare(unit))
    worker.close()
    (record,) = Ledger(tmp_path / "out/.speechadapt/journal").records([item.id])
    assert record is not None
    return record


def judge(monkeypatch: pytest.MonkeyPatch, **values: float | None) -> None:
    verdict = Verdict(dict(values), dict(values), "one two", "one too")
    monkeypatch.setattr("speechadapt.jobs.restore_worker.measure", lambda *_: verdict)


def loudest(path: Path) -> float:
    return float(np.abs(soundfile.read(path)[0]).max())


def test_a_restored_recording_is_ok_and_in_its_place(tmp_path: Path, item: PlanItem):
    record = work(tmp_path, item)
    assert (record.status, record.flags, record.outputs) == ("ok", (), ("deep/a.flac",))
    assert loudest(tmp_path / "out/deep/a.flac") == pytest.approx(0.2, abs=1e-3)
    assert "pred_before" not in record.row
    assert "model_s" not in json.dumps(dict(record.row))


def test_the_gate_keeps_the_original_and_says_why(tmp_path, item, monkeypatch):
    judge(monkeypatch, speaker=0.5)
    record = work(tmp_path, item, keep_original_if=("speaker<0.75",))
    assert (record.status, record.flags) == ("flagged", ("kept_original",))
    assert record.row["kept_original"] == ["speaker 0.500 < 0.75"]
    assert record.message == "speaker 0.500 < 0.75"
    assert record.row["pred_text"] == record.row["pred_before"] == "one two"
    assert loudest(tmp_path / "out/deep/a.flac") == pytest.approx(0.4, abs=1e-3)


def test_nothing_is_left_where_files_are_made(tmp_path, item, monkeypatch):
    judge(monkeypatch, speaker=0.5)
    work(tmp_path, item, keep_original_if=("speaker<0.75",))
    staging = tmp_path / "out/.speechadapt/staging"
    assert not [path for path in staging.rglob("*") if path.is_file()]


def test_a_gate_that_is_passed_changes_nothing(tmp_path, item, monkeypatch):
    judge(monkeypatch, speaker=0.9)
    record = work(tmp_path, item, keep_original_if=("speaker<0.75",))
    assert (record.status, record.row["kept_original"]) == ("ok", [])
    assert record.row["pred_text"] == "one too"
    assert record.row["scores"] == {"speaker": 0.9}
    assert loudest(tmp_path / "out/deep/a.flac") == pytest.approx(0.2, abs=1e-3)


def test_a_score_that_is_missing_is_flagged_and_meets_no_condition(tmp_path, item, monkeypatch):
    judge(monkeypatch, cer=None)
    record = work(tmp_path, item, keep_original_if=("cer>0.1",))
    assert (record.status, record.flags) == ("ok", ("gate_unscored",))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad"), "MODEL"),
        (MemoryError(), "OOM"),
        (RuntimeError("CUDA out of memory"), "OOM"),
        (OSError(28, "No space left on device"), "WRITE"),
    ],
)
def test_what_goes_wrong_has_its_reason(tmp_path, item, error, reason):
    record = work(tmp_path, item, error)
    assert (record.status, record.reason) == ("failed", reason)
    assert not (tmp_path / "out/deep/a.flac").exists()


def test_a_recording_that_stops_early_is_restored_as_far_as_it_goes(tmp_path, item):
    data = Path(item.path).read_bytes()
    Path(item.path).write_bytes(data[: len(data) // 2])
    record = work(tmp_path, item)
    assert (record.status, record.reason) == ("partial", "PARTIAL")
    assert soundfile.info(tmp_path / "out/deep/a.flac").frames == record.row["restored_samples"]


def test_a_suffix_stands_before_the_formats():
    options = RestoreOptions(suffix=".clean", format="opus")
    assert output_name(options, "deep/a.b") == "deep/a.b.clean.opus"

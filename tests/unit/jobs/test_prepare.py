from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import ConfigError, FingerprintError
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import read_plan
from speechadapt.jobs.prepare import clear, identity_of, prepare_job, worker_threads

HOOK = (
    "class Model:\n"
    "    sample_rate, window_s, language = 16000, 5.0, None\n"
    "    def fingerprint(self): return {'weights': ('a', 'b')}\n"
    "    def decode_batch(self, waveforms, languages=None): raise AssertionError\n"
    "def make(options): return Model()\n"
)


@pytest.fixture
def options(tmp_path: Path, monkeypatch) -> TranscribeOptions:
    (tmp_path / "hook.py").write_text(HOOK)
    monkeypatch.setenv("SPEECHADAPT_LOADER", f"{tmp_path}/hook.py:make")
    (tmp_path / "in").mkdir()
    for name, seconds in (("a", 1.0), ("b", 7.0)):
        soundfile.write(tmp_path / f"in/{name}.wav", np.zeros(round(seconds * 16000)), 16000)
    return TranscribeOptions(inputs=(str(tmp_path / "in"),), output=str(tmp_path / "out"))


def prepare(options: TranscribeOptions):
    return prepare_job(options, JobFolder(Path(options.output)), (0, 1))


def test_the_plan_follows_the_models_window_and_is_on_disk(options):
    job = prepare(options)
    assert [item.id for item in job.mine()] == ["a.wav", "b.wav"]
    assert [item.long for item in job.mine()] == [False, True]
    assert read_plan(job.folder.plan) == (job.plan, 1)
    assert prepare(options).plan == job.plan
    assert len(list(job.folder.plan.iterdir())) == 1


def test_a_job_with_other_options_is_refused_before_its_plan_is_touched(options):
    prepare(options)
    other = TranscribeOptions(inputs=options.inputs, output=options.output, vad=False)
    with pytest.raises(FingerprintError, match=r"options\.vad: True there, False now"):
        prepare(other)


def test_inputs_that_are_not_there_are_an_error_of_usage(options):
    with pytest.raises(ConfigError, match="does not exist"):
        prepare(TranscribeOptions(inputs=("/nowhere",), output=options.output))


def test_the_identity_is_what_comes_back_from_disk(options):
    job = prepare(options)
    assert job.folder.read_identity() == identity_of(options, job.model)


def test_shards_divide_all_items_among_them(options):
    folder = JobFolder(Path(options.output))
    parts = [prepare_job(options, folder, (number, 2)).mine() for number in range(2)]
    assert sorted(item.id for part in parts for item in part) == ["a.wav", "b.wav"]


def test_clearing_forgets_everything(options):
    job = prepare(options)
    clear(job.folder)
    assert not job.folder.exists()
    assert read_plan(job.folder.plan) == (None, 0)


def test_threads_are_shared_among_workers():
    assert worker_threads(TranscribeOptions()) is None
    assert worker_threads(TranscribeOptions(threads=4)) == 4
    assert worker_threads(TranscribeOptions(threads=4, workers=3)) == 1
    assert worker_threads(TranscribeOptions(workers=1000)) == 1

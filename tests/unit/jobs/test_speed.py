from __future__ import annotations

import pytest

from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.run import UnitResult
from speechadapt.jobs.speed import describe_run, measure, process_age_s, rates
from speechadapt.metrics.speed import Environment

PLACE = Environment("cpu", "float32", 2, "<= 16", "2.11")


def unit(audio_s: float, model_s: float, first: bool = False) -> UnitResult:
    return UnitResult((), audio_s=audio_s, model_s=model_s, decode_s=0.1, first=first)


def test_the_models_figure_leaves_each_workers_first_batch_out():
    found = measure([unit(10.0, 5.0, True), unit(100.0, 2.0), unit(100.0, 3.0)], 1, PLACE)
    assert found is not None
    assert found.model_rtf == pytest.approx(0.025)
    assert "left out (5.00 s)" in found.warm_up
    assert found.audio_s == 210.0
    assert found.model_s == 10.0


def test_a_run_of_one_batch_counts_it_and_says_so():
    found = measure([unit(10.0, 5.0, True)], 1, PLACE)
    assert found is not None
    assert found.model_rtf == 0.5
    assert "included" in found.warm_up


def test_end_to_end_counts_from_the_start_of_the_process():
    found = measure([unit(10.0, 0.1)], 1, PLACE)
    assert found is not None
    assert found.wall_s == pytest.approx(process_age_s(), abs=5.0)
    assert found.rtf == found.wall_s / 10.0
    row = found.to_json()
    assert row["end_to_end"]["rtf"] > row["model"]["rtf"]
    assert row["environment"]["threads"] == 2


def test_no_audio_has_no_speed():
    assert measure([], 1, PLACE) is None
    assert rates(None) == {"rtf": None, "rtfx": None}
    assert rates(0.05) == {"rtf": 0.05, "rtfx": 20.0}


def test_the_environment_names_device_dtype_batch_and_threads():
    found = describe_run(TranscribeOptions(device="cpu", batch_size=8, batch_s=60.0))
    assert found.device == "cpu"
    assert found.dtype == "float32"
    assert found.batch == "<= 8 clips and 60 s"
    assert found.threads >= 1


def test_the_age_of_a_process_grows():
    first = process_age_s()
    assert 0 < first <= process_age_s()

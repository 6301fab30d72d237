"""`tools/bench.py`: both sides do the same work, and ratios follow from the seconds of stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench
import bench_claims
import bench_sides
import pytest
import torch
from bench_models import QUICK, write_random
from transformers.utils import logging

from speechadapt.core.errors import ConfigError


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of one quick run on the shipped clips."""
    threads, level = torch.get_num_threads(), logging.get_verbosity()
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPEECHADAPT_DATA", raising=False)
        assert bench.main(["--quick", "--threads", "1", "--output", str(output)]) == 0
    assert logging.get_verbosity() == level
    torch.set_num_threads(threads)
    return json.loads(output.read_text())


def test_at_equal_padding_both_sides_write_the_same_by_the_same_work(
    report: dict[str, Any],
) -> None:
    ours, pipeline, _ = report["details"]["equal_padding"]["sides"]
    assert ours["encoder_calls"] == pipeline["encoder_calls"] == 2
    assert ours["decoder_steps"] == pipeline["decoder_steps"] > 0
    assert pipeline["texts_as_first_side"] == report["details"]["equal_padding"]["clips"] == 6


def test_both_sides_write_exactly_twelve_tokens(report: dict[str, Any]) -> None:
    for side in report["details"]["native_length"]["sides"]:
        assert side["decoder_steps"] == 12 * side["encoder_calls"] == 24


def test_stages_add_up_to_the_whole(report: dict[str, Any]) -> None:
    for part in ("equal_padding", "native_length"):
        for side in report["details"][part]["sides"]:
            for turn in range(2):
                seconds = {stage: values[turn] for stage, values in side["seconds"].items()}
                whole = seconds.pop("total")
                assert sum(seconds.values()) == pytest.approx(whole, abs=1e-3)
                assert min(seconds["features"], seconds["encoder"], seconds["decoder"]) > 0
                assert seconds["other"] > -1e-3
            assert 0 < side["decode_share"] < 1


def test_ratios_follow_from_the_seconds(report: dict[str, Any]) -> None:
    figures = {one["claim"]: one for one in report["figures"]}
    ours, pipeline = report["details"]["native_length"]["sides"]
    rounds = [
        theirs / mine
        for theirs, mine in zip(
            pipeline["seconds"]["encoder"], ours["seconds"]["encoder"], strict=True
        )
    ]
    assert figures["native_encoder"]["low"] == pytest.approx(min(rounds))
    assert figures["native_encoder"]["high"] == pytest.approx(max(rounds))
    assert set(figures) == {
        name for name, claim in bench_claims.CLAIMS.items() if claim.file == "bench.json"
    }


def test_the_file_says_how_it_was_made(report: dict[str, Any]) -> None:
    assert report["quick"] is True
    assert report["command"] == "python tools/bench.py --quick --threads 1 --output bench.json"
    assert report["threads"] == 1
    assert report["details"]["equal_padding"]["source"].startswith("shipped demo clips, repeated")


def test_another_number_of_tokens_is_an_error(
    tmp_path: Path,
) -> None:
    folder = write_random(QUICK, tmp_path / "random")
    settings = json.loads((folder / "generation_config.json").read_text())
    # Without the rule that keeps every special token away, texts end early.
    everything = list(range(len(settings["suppress_tokens"]) + settings["eos_token_id"]))
    settings["suppress_tokens"] = [one for one in everything if one != settings["eos_token_id"]]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    arguments = bench.parse(["--quick"])
    clips = bench.short_clips(None, 2)
    with pytest.raises(ConfigError, match="was to write 12 tokens"):
        bench.native_length(arguments, folder, clips)


def test_a_missing_model_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    assert bench.main(["--model", "mini-whisker", "--clips", "2", "--threads", "1"]) == 2
    assert "mini-whisker" in capsys.readouterr().err


class Counter:
    """Something with a method to time."""

    def work(self, times: int) -> int:
        """Return a number."""
        return 2 * times


def test_a_wrapped_method_is_itself_again_afterwards() -> None:
    watch, counter = bench_sides.Stopwatch(torch.device("cpu")), Counter()
    with watch.timed(counter, "work", "encoder"), watch.counted(Counter, "work", "steps"):
        assert counter.work(3) == 6
    assert "work" not in vars(counter)
    assert watch.calls["encoder"] == 1
    assert watch.calls["steps"] == 0  # the object's own wrapper came first
    assert watch.seconds["encoder"] > 0
    before = dict(watch.seconds)
    counter.work(1)
    assert dict(watch.seconds) == before


def test_sides_take_turns_and_the_first_changes() -> None:
    turns: list[str] = []

    class Named(bench_sides.Side):
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, waveforms: bench_sides.Waveforms, batch: int) -> bench_sides.Pass:
            turns.append(f"{self.name}{len(waveforms)}")
            return bench_sides.Pass((), dict.fromkeys(bench_sides.STAGES, 1.0), 1, 1)

    clips = bench.short_clips(None, 3).waveforms
    passes = bench_sides.alternate([Named("a"), Named("b")], clips, 2, 2)
    assert turns == ["a2", "b2", "a3", "b3", "b3", "a3"]
    assert [len(one) for one in passes] == [2, 2]

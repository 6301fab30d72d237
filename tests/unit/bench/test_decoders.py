from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechadapt.bench.decoders import compare_decoders, crossovers
from speechadapt.bench.options import DecoderBench
from speechadapt.core.errors import ConfigError, ShapeError
from tests import synthetic


def row(side: str, seconds: float, total: float) -> dict[str, object]:
    return {"side": side, "clip_s": seconds, "median_s": {"total": total}}


def test_a_crossover_lies_on_the_line_between_two_lengths() -> None:
    rows = [row("autoregressive, greedy", one, one) for one in (5.0, 10.0, 20.0)]
    rows += [row("diffusion a", one, 8.0) for one in (5.0, 10.0, 20.0)]
    rows += [row("diffusion b", one, 1.0) for one in (5.0, 10.0, 20.0)]
    rows += [row("diffusion c", one, 30.0) for one in (5.0, 10.0, 20.0)]
    rows += [row("CTC", one, 0.1) for one in (5.0, 10.0, 20.0)]
    assert crossovers(rows) == [
        {"side": "diffusion a", "from_s": 8.0},
        {"side": "diffusion b", "from_s": 5.0},
        {"side": "diffusion c", "from_s": None},
    ]


def test_trained_sides_are_scored_by_corpus_and_by_utterance(
    diffusion: Path, tmp_path: Path
) -> None:
    synthetic.write_pack(tmp_path, ("tones",), (), ())
    options = DecoderBench(
        model=str(diffusion),
        data=str(tmp_path),
        sets=("tones/dev",),
        limit=2,
        num_candidates="2",
        num_steps="2",
        selections="mbr",
        rounds=2,
        batch_size=2,
    )
    report = compare_decoders(options)
    json.dumps(report)
    assert report["clips"] == 2
    assert report["environment"]["batch"] == "2"
    for side in report["sides"]:
        scores = side["sets"][0]
        assert scores["set"] == "tones/dev"
        assert scores["wer"] > 0
        assert scores["mean_utterance_wer"] > 0
        assert side["ranges"][0]["set"] == "<5 s"
        assert side["ranges"][0]["wer"] == scores["wer"]
        assert len(side["seconds"]["decode"]) == 2
        median = side["median_s"]
        assert median["total"] == pytest.approx(median["encode"] + median["decode"], rel=0.5)
        assert side["rtf"] > 0


def test_random_sides_are_timed_by_length_and_by_candidates() -> None:
    options = DecoderBench(
        random="tiny", seconds="1,2", num_candidates="1,2", num_steps="2", rounds=1, batch_size=2
    )
    report = compare_decoders(options)
    json.dumps(report)
    assert report["parameters"]["diffusion decoder"] > 0
    by_length = [(one["clip_s"], one["tokens"]) for one in report["length"]]
    assert sorted(set(by_length)) == [(1, 3), (2, 6)]
    heads = [one["settings"].get("length_head") for one in report["candidates"]]
    assert heads == [None, None, None, None, True, True, False, False]
    short, whole = (report["candidates"][at]["positions"] for at in (4, 6))
    assert short < whole == 24
    assert [one["side"] for one in report["crossover"]] == [
        "diffusion, confidence, K=1, 2 steps",
        "diffusion, confidence, K=2, 2 steps",
    ]
    assert report["reuse"][0]["same"]


def test_what_cannot_be_compared_is_said(diffusion: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--seconds 30 was asked of --random tiny"):
        compare_decoders(DecoderBench(random="tiny"))
    with pytest.raises(ShapeError, match=r"lasts .* s, the decoders take clips of 2 s at most"):
        compare_decoders(DecoderBench(model=str(diffusion)))


def test_sets_need_the_pack(diffusion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    with pytest.raises(ConfigError, match="give --data or SPEECHADAPT_DATA"):
        compare_decoders(DecoderBench(model=str(diffusion), sets=("tones/dev",)))

"""Claims, verdicts and commands: what stands beside every measured figure."""

from __future__ import annotations

import json
from pathlib import Path

import bench_claims
import bench_facts
import pytest
from bench_claims import CLAIMS, Claim

from speechadapt.core.errors import ConfigError


def test_a_verdict_follows_from_the_figure_and_the_bar() -> None:
    at_most, at_least = Claim("a", "a.json", bar=0.05), Claim("b", "b.json", bar=4, at_least=True)
    assert at_most.met(0.05)
    assert not at_most.met(0.0501)
    assert at_least.met(4.0)
    assert not at_least.met(3.99)
    assert Claim("c", "c.json").met(1.0) is None


def test_a_bar_says_which_side_is_good() -> None:
    assert CLAIMS["pipeline_equal_padding"].bar_text == "<= 1.05x"
    assert CLAIMS["native_encoder"].bar_text == ">= 4x"
    assert CLAIMS["transcribe_warm"].bar_text == "-"


def test_a_figure_is_the_median_with_its_ends() -> None:
    made = bench_facts.figure("native_small", [0.3, 0.1, 0.15], "rounds")
    assert (made["value"], made["low"], made["high"]) == (0.15, 0.1, 0.3)
    assert made["method"] == "median, min and max of 3 rounds"
    with pytest.raises(ConfigError, match="Did you mean native_small"):
        bench_facts.figure("native_smal", [1.0], "rounds")


def test_printed_verdicts_fail_on_one_missed_bar(capsys: pytest.CaptureFixture[str]) -> None:
    good = bench_facts.figure("native_small", [0.1], "rounds")
    bad = bench_facts.figure("native_encoder", [3.0], "rounds")
    shown = bench_facts.figure("native_whole", [0.5], "rounds")
    assert bench_facts.print_figures([good, shown])
    assert not bench_facts.print_figures([good, bad, shown])
    printed = capsys.readouterr().out
    assert "bar >= 4x: missed" in printed
    assert "bar <= 0.2: met" in printed


def test_a_command_names_the_pack_by_its_variable() -> None:
    given = ["--data", "/mnt/somewhere/pack", "--threads", "2"]
    wanted = 'python tools/x.py --data "$SPEECHADAPT_DATA" --threads 2'
    assert bench_facts.describe_command("x.py", given) == wanted
    joined = bench_facts.describe_command("x.py", ["--data=/mnt/pack"])
    assert joined == 'python tools/x.py "--data=$SPEECHADAPT_DATA"'


def test_a_pack_from_the_environment_is_named_too() -> None:
    assert bench_facts.describe_command("x.py", [], pack=True).endswith(
        '--data "$SPEECHADAPT_DATA"'
    )
    once = bench_facts.describe_command("x.py", ["--data", "/mnt/pack"], pack=True)
    assert once.count("--data") == 1


def test_no_place_of_a_machine_stays_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHADAPT_DATA", str(tmp_path / "pack"))
    words = [
        "--model",
        str(bench_facts.ROOT / "runs" / "ctc" / "best"),
        "--output",
        str(tmp_path / "result.json"),
        "--lm",
        str(tmp_path / "pack" / "lm.txt"),
        "--option",
        f"word_list={tmp_path / 'words.txt'}",
        "openai/whisper-small",
    ]
    shown = bench_facts.describe_command("x.py", words)
    assert shown == (
        "python tools/x.py --model runs/ctc/best --output result.json "
        '--lm "$SPEECHADAPT_DATA/lm.txt" --option word_list=words.txt openai/whisper-small'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04321, "0.0432"),
        (0.2, "0.2"),
        (4.0, "4"),
        (1.046, "1.05"),
        (12.34, "12.3"),
        (301.2, "301"),
    ],
)
def test_figures_keep_three_digits_that_count(value: float, text: str) -> None:
    assert bench_claims.number(value) == text


def test_a_result_is_json_with_what_it_was_measured_on() -> None:
    facts = bench_facts.environment("cpu", "float32", 2, "16")
    made = bench_facts.result("python tools/x.py", facts, [], {"a": 1})
    read = json.loads(json.dumps(made))
    assert read["quick"] is False
    assert read["device"] == "cpu"
    assert {"date", "processor", "dtype", "threads", "torch", "transformers"} <= set(read)

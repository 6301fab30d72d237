"""Compare with transformers' own speech recognition pipeline: same weights, batch, threads, dtype.

Two comparisons in one run, both sides taking turns, every stage's time printed:

1. `mini-whisper` at equal padding: both pad to the model's window and search greedily without
   temperature fallback. Beside it, ours with its defaults (fallback on).
2. Whisper-tiny geometry with random weights and a 30 s window: ours at native length against the
   pipeline, both forced to write exactly 12 tokens per clip.

    python tools/bench.py --data PACK --output docs/results/bench.json
    python tools/bench.py --quick        # a smoke run: small random models, no bars

Clips: 200 of 1 to 5 s from the test splits of the pack (--data or SPEECHADAPT_DATA), else the
shipped clips repeated; the report says which. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench_clips import Clips, find_pack, short_clips
from bench_facts import describe_command, environment, figure, public_place, result, run_tool
from bench_models import QUICK, WHISPER_TINY, write_random
from bench_sides import STAGES, Ours, Pass, Pipeline, Side, alternate

from speechadapt.core.errors import ConfigError
from speechadapt.models.build import find_model

TOKENS = 12
CLIPS, LEAST_ROUNDS = 200, 3  # of less it is a smoke run
GREEDY: dict[str, Any] = {
    "temperature": (0.0,),
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
}


def equal_padding(arguments: argparse.Namespace, folder: Path, clips: Clips) -> dict[str, Any]:
    """Measure a trained model, both sides padded to its window."""
    place = (folder, arguments.device, arguments.dtype)
    padded = {"padding": "full", "language": "en"}
    ours = Ours("ours", *place, options=padded | GREEDY)
    most = ours.recogniser.decoder.network.config.max_target_positions // 2
    pipeline = Pipeline("pipeline", *place, generate=generate_arguments(max_new_tokens=most))
    defaults = Ours("ours, with fallback", *place, options=padded)
    return compare([ours, pipeline, defaults], clips, arguments)


def native_length(arguments: argparse.Namespace, folder: Path, clips: Clips) -> dict[str, Any]:
    """Measure random weights: ours at native length, the pipeline padded, 12 tokens each.

    Raises:
        ConfigError: A side did not write exactly 12 tokens for every clip.
    """
    place = (folder, arguments.device, arguments.dtype)
    native = {"padding": "native", "language": "en", "sample_len": TOKENS}
    forced = generate_arguments(max_new_tokens=TOKENS, min_new_tokens=TOKENS)
    ours = Ours("ours, native length", *place, options=native | GREEDY)
    pipeline = Pipeline("pipeline, 30 s", *place, generate=forced)
    report = compare([ours, pipeline], clips, arguments)
    for side in report["sides"]:
        if side["decoder_steps"] != TOKENS * side["encoder_calls"]:
            raise ConfigError(
                f"{side['side']} was to write {TOKENS} tokens in each of {side['encoder_calls']} "
                f"batches; its decoder ran {side['decoder_steps']} times."
            )
    return report


def generate_arguments(**limits: int) -> dict[str, Any]:
    """Return what the pipeline's `generate` needs to do the same work as our greedy search."""
    # Left open, the pipeline searches with five beams and spends a pass on the language.
    return {"num_beams": 1, "language": "en", "task": "transcribe", **limits}


def compare(sides: Sequence[Side], clips: Clips, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let sides take turns and put their seconds together; prints a table."""
    say = (lambda line: print(line, file=sys.stderr)) if arguments.verbose else (lambda line: None)
    passes = alternate(sides, clips.waveforms, arguments.batch, arguments.rounds, say)
    rows = [side_row(*both) for both in zip(sides, passes, strict=True)]
    first = passes[0][0].texts
    for row, runs in zip(rows, passes, strict=True):
        same = sum(mine == other for mine, other in zip(first, runs[0].texts, strict=True))
        row["texts_as_first_side"] = same
    report = {
        "clips": len(clips.waveforms),
        "audio_s": round(clips.audio_s, 2),
        "source": clips.source,
        "rounds": arguments.rounds,
        "sides": rows,
    }
    print_table(report)
    return report


def side_row(side: Side, runs: Sequence[Pass]) -> dict[str, Any]:
    """Return every round's seconds of one side by stage, with medians."""
    seconds = {stage: [run.seconds[stage] for run in runs] for stage in STAGES}
    medians = {stage: statistics.median(values) for stage, values in seconds.items()}
    return {
        "side": side.name,
        "median_s": {stage: round(value, 4) for stage, value in medians.items()},
        "decode_share": round(medians["decoder"] / medians["total"], 4),
        "encoder_calls": runs[0].encoder_calls,
        "decoder_steps": runs[0].decoder_steps,
        "seconds": {stage: [round(one, 4) for one in values] for stage, values in seconds.items()},
    }


def ratios(report: dict[str, Any], above: int, below: int, stage: str) -> list[float]:
    """Return one side's seconds over the other's, round by round."""
    first, second = (report["sides"][index]["seconds"][stage] for index in (above, below))
    return [one / other for one, other in zip(first, second, strict=True)]


def print_table(report: dict[str, Any]) -> None:
    print(f"\n{report['clips']} clips, {report['audio_s']:.0f} s ({report['source']})")
    print(f"{'median seconds of a pass':<26}" + "".join(f"{stage:>10}" for stage in STAGES), end="")
    print(f"{'decode':>9}{'RTF':>9}{'same text':>11}{'steps':>7}")
    for side in report["sides"]:
        medians = side["median_s"]
        rtf = medians["total"] / report["audio_s"]
        print(f"{side['side']:<26}" + "".join(f"{medians[s]:>10.3f}" for s in STAGES), end="")
        print(f"{100 * side['decode_share']:>7.0f} %{rtf:>9.4f}", end="")
        print(f"{side['texts_as_first_side']:>11}{side['decoder_steps']:>7}")


def figures(trained: dict[str, Any] | None, random: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the claims of the comparisons that were made."""
    rounds = "alternating rounds"
    native = [
        figure("native_encoder", ratios(random, 1, 0, "encoder"), rounds),
        figure("native_whole", ratios(random, 1, 0, "total"), rounds),
    ]
    if trained is None:
        return native
    return [
        figure("pipeline_equal_padding", ratios(trained, 0, 1, "total"), rounds),
        figure("pipeline_defaults", ratios(trained, 2, 1, "total"), rounds),
        *native,
    ]


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Run both comparisons, or the one at native length alone."""
    pack = find_pack(arguments.data)
    untrained = arguments.quick or arguments.native_only
    folder = None if untrained else find_model(arguments.model, offline=True)
    clips = short_clips(pack, arguments.clips)
    torch.set_num_threads(arguments.threads)
    facts = environment(
        arguments.device, arguments.dtype, torch.get_num_threads(), str(arguments.batch)
    )
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    with TemporaryDirectory() as temporary:
        random = write_random(QUICK if arguments.quick else WHISPER_TINY, Path(temporary) / "r")
        trained_report = (
            None if arguments.native_only else equal_padding(arguments, folder or random, clips)
        )
        random_report = native_length(arguments, random, clips)
    name = "random weights" if untrained else public_place(arguments.model)
    details = {
        "model": name,
        "source": f"{len(clips.waveforms)} clips: {clips.source}",
        "equal_padding": trained_report,
        "native_length": random_report,
    }
    command = describe_command("bench.py", words, pack is not None)
    smoke = arguments.quick or arguments.clips < CLIPS or arguments.rounds < LEAST_ROUNDS
    return result(command, facts, figures(trained_report, random_report), details, smoke)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-whisper", help="bundled name or folder")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--verbose", action="store_true", help="a line for every pass")
    parser.add_argument(
        "--native-only", action="store_true", help="leave out the comparison of a trained model"
    )
    parser.add_argument("--quick", action="store_true", help="smoke run with small random models")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.clips, arguments.batch, arguments.rounds = 6, 4, 2
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

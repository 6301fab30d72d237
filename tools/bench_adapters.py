"""What adapters cost: a training step against peft's, a forward pass, encoding at native length.

    python tools/bench_adapters.py --output docs/results/adapters_speed.json
    python tools/bench_adapters.py --quick     # a smoke run on a small geometry, no bars

Four comparisons on random weights, which do not change the cost; sides take turns, and every figure
is the median of the rounds' ratios:

1. a training step of LoRA at query and value, ours against peft's (`bench_steps.py`): time, and how
   much resident memory a fresh process grows by at most;
2. the upper half of the layers alone, ours with the states below it kept, against peft's; filling
   the cache is timed apart;
3. a forward pass of a Whisper-small-sized encoder with an unmerged parallel adapter, and with a
   merged LoRA, against the bare one;
4. encoders at native length with the `native_length` adapter, merged, against the padded window;
   for the shortest clip, where it counts most, also unmerged.

Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_facts import describe_command, environment, figure, result, run_tool
from bench_native import GEOMETRIES, build
from bench_steps import MB, Setting, clips, peak_growth, several, take_turns, time_steps
from torch.utils._python_dispatch import TorchDispatchMode

from speechadapt.adapters.attach import attach
from speechadapt.adapters.merge import merge
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.whisper import WhisperEncoder

ROUNDS = 9  # of less it is a smoke run
SMALL = "whisper-small"
WIDTH = 64
CALLS = 10  # of an encoder that is done in milliseconds, in one round
FORWARD_S = 10.0  # a clip at native length; longer ones have more attention, so a smaller overhead
NATIVE = (  # claim, geometry, seconds of the clip, threads (None: as asked)
    ("native_length_5s", "mini-whisper", 5.0, None),
    ("native_length_2s", "mini-whisper", 2.0, None),
    ("native_length_2s_one_thread", "mini-whisper", 2.0, 1),
    ("native_length_small", SMALL, 5.0, None),
)
UNMERGED = "native_length_2s"  # the comparison in which the unmerged adapter is shown too


class CountOperations(TorchDispatchMode):
    """Counts the tensor operations that are run inside its `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count one operation and run it."""
        self.count += 1
        return function(*args, **(kwargs or {}))


def training(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare training steps in time and memory, then with the prefix kept."""
    setting = Setting(
        arguments.geometry,
        arguments.seconds,
        arguments.batch,
        arguments.rank,
        arguments.dtype,
        arguments.device,
        arguments.threads,
    )
    rounds = f"alternating rounds of {arguments.steps} steps"
    whole, facts = time_steps(("ours", "peft"), setting, arguments.rounds, arguments.steps)
    upper = replace(setting, upper=True)
    kept, kept_facts = time_steps(("reuse", "peft"), upper, arguments.rounds, arguments.steps)
    grown = {
        side: [peak_growth(side, setting) for _ in range(arguments.processes)]
        for side in ("ours", "peft")
    }
    figures = [
        figure("lora_step", ratios(whole, "ours", "peft"), rounds),
        figure("lora_memory", ratios(grown, "ours", "peft"), "pairs of fresh processes"),
        figure("lora_reuse", ratios(kept, "reuse", "peft"), rounds),
        figure("lora_reuse_build", [kept_facts["cache_build_s"]["reuse"]], "batch"),
    ]
    details = {
        "geometry": arguments.geometry,
        "clip_s": arguments.seconds,
        "rank": arguments.rank,
        "all_layers": facts | {"seconds_per_step": rounded(whole)},
        "upper_half": kept_facts | {"seconds_per_step": rounded(kept)},
        "memory_growth_mb": {
            side: [round(one / MB, 1) for one in sizes] for side, sizes in grown.items()
        },
    }
    return figures, details


def forward(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare forward passes: bare, with an unmerged parallel adapter, with a merged LoRA."""
    geometry = sized(arguments, SMALL)
    native = {
        name: frozen(arguments, geometry, "native") for name in ("bare", "parallel", "merged")
    }
    attach(native["parallel"], "parallel", config={"bottleneck": WIDTH})
    attach(native["merged"], "lora")
    merge(native["merged"], "lora")
    works = {name: encoding(one, FORWARD_S) for name, one in native.items()}
    seconds = take_turns(works, arguments.rounds)
    operations = {name: count(work) for name, work in works.items()}
    above = {
        name: [100 * (one - 1) for one in ratios(seconds, name, "bare")]
        for name in ("parallel", "merged")
    }
    more = 100 * (operations["merged"] / operations["bare"] - 1)
    figures = [
        figure("parallel_forward", above["parallel"], "alternating rounds"),
        figure("merged_forward", [more], "count"),
        figure("merged_time", above["merged"], "alternating rounds"),
    ]
    details = {
        "geometry": geometry,
        "clip_s": FORWARD_S,
        "operations": operations,
        "seconds": rounded(seconds),
    }
    return figures, details


def native_length(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare native length with the adapter, merged and unmerged, with the padded window."""
    figures: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    rounds = "alternating rounds"
    for claim, wanted, clip_s, threads in NATIVE:
        torch.set_num_threads(threads or arguments.threads)
        geometry = sized(arguments, wanted)
        padded = frozen(arguments, geometry, "full")
        unmerged, merged = (frozen(arguments, geometry, "native") for _ in range(2))
        attach(unmerged, "native_length")
        attach(merged, "native_length")
        merge(merged, "native_length")
        sides = {"padded": padded, "unmerged": unmerged, "merged": merged}
        calls = 1 if wanted == SMALL else CALLS
        works = {name: several(encoding(one, clip_s), calls) for name, one in sides.items()}
        seconds = take_turns(works, arguments.rounds)
        figures.append(figure(claim, ratios(seconds, "padded", "merged"), rounds))
        if claim == UNMERGED:
            values = ratios(seconds, "padded", "unmerged")
            figures.append(figure("native_length_unmerged", values, rounds))
        details[claim] = {
            "geometry": geometry,
            "clip_s": clip_s,
            "window_s": padded.window_s,
            "threads": threads or arguments.threads,
            "calls_per_round": calls,
            "seconds": rounded(seconds),
        }
    torch.set_num_threads(arguments.threads)
    return figures, details


def sized(arguments: argparse.Namespace, geometry: str) -> str:
    """Return the geometry to measure, the small one in a smoke run."""
    return arguments.geometry if arguments.quick else geometry


def frozen(arguments: argparse.Namespace, geometry: str, padding: str) -> WhisperEncoder:
    """Return an encoder with weights of its own, equal to those of any other call."""
    encoder = build(geometry, torch.float32, arguments.device)[padding]
    encoder.freeze()
    return encoder.to(getattr(torch, arguments.dtype))


def encoding(encoder: Encoder, clip_s: float) -> Callable[[], object]:
    """Return a function that encodes one clip whose features are ready."""
    features, lengths = encoder.extract(clips(1, clip_s))
    first = next(encoder.model.parameters())
    features, lengths = features.to(first.device, first.dtype), lengths.to(first.device)

    @torch.no_grad()
    def work() -> object:
        return encoder(features, lengths)

    return work


def count(work: Callable[[], object]) -> int:
    """Return the number of tensor operations of some work."""
    with CountOperations() as operations:
        work()
    return operations.count


def ratios(values: dict[str, Any], above: str, below: str) -> list[float]:
    """Return one side's values over another's, round by round."""
    return [one / other for one, other in zip(values[above], values[below], strict=True)]


def rounded(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    return {side: [round(one, 5) for one in runs] for side, runs in seconds.items()}


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Run all comparisons."""
    from importlib.metadata import version

    torch.set_num_threads(arguments.threads)
    figures: list[dict[str, Any]] = []
    details: dict[str, Any] = {"peft": version("peft")}
    for part in (training, forward, native_length):
        found, details[part.__name__] = part(arguments)
        figures += found
    batch = f"{arguments.batch} for training, 1 for forward passes"
    facts = environment(arguments.device, arguments.dtype, arguments.threads, batch)
    command = describe_command("bench_adapters.py", words)
    smoke = arguments.quick or arguments.rounds < ROUNDS
    return result(command, facts, figures, details, smoke)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--geometry", choices=sorted(GEOMETRIES), default=SMALL, help="of the training steps"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="clips of a training step")
    parser.add_argument("--batch", type=int, default=4, help="clips of a training step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="training steps of one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--processes", type=int, default=3, help="fresh processes for memory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on a small geometry")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.geometry, arguments.rounds, arguments.processes = "quick", 3, 1
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_adapters", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

"""What the fusion of many adapters costs at inference: ten at once against the bare encoder.

    python tools/bench_fusion.py --output docs/results/fusion_speed.json
    python tools/bench_fusion.py --quick     # a smoke run on a small geometry

Ten parallel adapters of width 32 on a Whisper-small-sized encoder with random weights, which do not
change the cost: mean, gate and attention as one product, and beside them attention with the
adapters run one after another, with low-rank and with full-rank maps. Sides take turns; every
figure is the median of the rounds' ratios. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_adapters import encoding, frozen, ratios, rounded, sized
from bench_facts import describe_command, environment, figure, result, run_tool
from bench_steps import take_turns

from speechadapt.adapters.attach import attach
from speechadapt.adapters.composed import compose
from speechadapt.encoders.whisper import WhisperEncoder

ROUNDS = 9  # of less it is a smoke run
PARTS, WIDTH = 10, 32
CLIP_S = 10.0
SMALL = "whisper-small"
BARE = "bare"
# Settings of the fusion, and whether its adapters run one after another.
SIDES = {
    "mean": ("method=mean", False),
    "gated": ("method=gated", False),
    "attention": ("method=attention", False),
    "attention_in_turn": ("method=attention", True),
    "attention_full_in_turn": ("method=attention, key_width=0, value=full", True),
}


def fused(encoder: WhisperEncoder, settings: str, in_turn: bool) -> WhisperEncoder:
    """Put ten adapters and their fusion on an encoder.

    Args:
        encoder: The encoder.
        settings: Of the fusion.
        in_turn: Whether the adapters run one after another.
    """
    torch.manual_seed(0)
    names = [f"part{number}" for number in range(PARTS)]
    for name in names:
        handle = attach(
            encoder, "parallel", name=name, config={"bottleneck": WIDTH}, activate=False
        )
        with torch.no_grad():
            for tensor in handle.parameters():
                tensor += 0.02 * torch.randn(tensor.shape)  # as after training: nothing is zero
        for adapter in handle.module.adapters():
            if in_turn:
                adapter.branch = lambda: None  # type: ignore[method-assign]
        handle.module.eval().requires_grad_(False)
    compose(encoder, f"fuse({', '.join(names)}, {settings})", name="fused")
    encoder.eval()
    return encoder


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Time all sides in turns."""
    torch.set_num_threads(arguments.threads)
    geometry = sized(arguments, SMALL)
    works = {BARE: encoding(frozen(arguments, geometry, "native"), arguments.clip_s)}
    for name, (settings, in_turn) in SIDES.items():
        encoder = fused(frozen(arguments, geometry, "native"), settings, in_turn)
        works[name] = encoding(encoder, arguments.clip_s)
    seconds = take_turns(works, arguments.rounds, warm_up=2)
    figures = [
        figure(f"fusion_{name}", ratios(seconds, name, BARE), "alternating rounds")
        for name in SIDES
    ]
    details = {
        "geometry": geometry,
        "clip_s": arguments.clip_s,
        "parts": PARTS,
        "bottleneck": WIDTH,
        "seconds": rounded(seconds),
    }
    facts = environment(arguments.device, arguments.dtype, arguments.threads, "1")
    smoke = arguments.quick or arguments.rounds < ROUNDS
    return result(describe_command("bench_fusion.py", words), facts, figures, details, smoke)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip-s", type=float, default=CLIP_S, help="length of the clip")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on a small geometry")
    arguments = parser.parse_args(words)
    arguments.geometry = SMALL
    if arguments.quick:
        arguments.geometry, arguments.rounds, arguments.clip_s = "quick", 2, 0.5
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_fusion", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

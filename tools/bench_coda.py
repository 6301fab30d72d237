"""Encoder time with conditional adapters (`coda`) against the bare encoder, by share of the frames.

    python tools/bench_coda.py --output docs/results/coda_speed.json
    python tools/bench_coda.py --quick     # a smoke run on a small geometry

Two encoders: mini-usm, and one of Whisper-small's size with random weights at native length.
Adapters with random weights, which do not change the cost, stand at the feed-forwards alone and at
attention and feed-forwards; attention goes from the chosen frames to themselves and, where the
encoder can, to all. Sides take turns; a figure is the median of the rounds' ratios at one share of
the frames. The whole curve over the shares is in the details: seconds, times faster, real-time
factor. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_adapters import encoding, ratios, rounded
from bench_facts import describe_command, environment, figure, result, run_tool
from bench_native import build
from bench_steps import take_turns

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.coda import set_share
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.parts import load_base

ROUNDS = 9  # of less it is a smoke run
WIDTHS = {"usm": 24, "small": 64}  # of the adapters, a fraction of the encoder's width
FIGURES = {"usm": 0.125, "small": 0.25}  # share of the frames that the figures are of
QUICK_S = 0.5
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
BARE = "bare"
# Roles that are routed, and what a routed attention looks at.
SIDES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ffn": (("ffn",), "chosen"),
    "attn_ffn": (("attn", "ffn"), "chosen"),
    "attn_all_ffn": (("attn", "ffn"), "all"),
}
# Encoder, seconds of the clip, and the claim of each side.
CASES = (
    ("usm", 25.0, {"attn_ffn": "coda_usm", "ffn": "coda_usm_ffn"}),
    ("small", 20.0, {"attn_ffn": "coda_small_20s"}),
    (
        "small",
        30.0,
        {"attn_ffn": "coda_small", "attn_all_ffn": "coda_small_all", "ffn": "coda_small_ffn"},
    ),
)


def encoder_of(name: str, arguments: argparse.Namespace) -> Encoder:
    """Return one of the two encoders, in a smoke run a small one."""
    if name == "usm" and not arguments.quick:
        found: Encoder = load_base("mini-usm", "native")[0]
        found.to(arguments.device, getattr(torch, arguments.dtype))
    else:
        geometry = "quick" if arguments.quick else "whisper-small"
        found = build(geometry, getattr(torch, arguments.dtype), arguments.device)["native"]
    return found.freeze()


def routed(
    encoder: Encoder, side: str, width: int, shares: Sequence[float] = SHARES
) -> dict[str, Callable[[], None]]:
    """Attach one side's adapters, not yet active.

    Returns:
        By share, what makes them send that share of the frames.
    """
    roles, keys = SIDES[side]
    torch.manual_seed(0)
    handle = attach(
        encoder,
        "coda",
        name=side,
        roles=roles,
        config={"bottleneck": width, "keys": keys},
        activate=False,
    )
    handle.module.eval().requires_grad_(False)
    adapters = handle.module.adapters()
    return {f"{share:g}": lambda share=share: set_share(adapters, share) for share in shares}


def measure_case(
    name: str, seconds: float, claims: Mapping[str, str], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time one encoder on one length: bare, and every side with every share, in turns."""
    encoder = encoder_of(name, arguments)
    seconds = QUICK_S if arguments.quick else seconds
    main = FIGURES[name]
    shares = (main,) if arguments.quick else SHARES
    encode = encoding(encoder, seconds)

    def chosen(names: str | None, prepare: Callable[[], None] | None) -> Callable[[], object]:
        def work() -> object:
            if prepare is not None:
                prepare()
            with active(encoder, names):
                return encode()

        return work

    works = {BARE: chosen(None, None)}
    for side in claims:
        for share, prepare in routed(encoder, side, WIDTHS[name], shares).items():
            works[f"{side} {share}"] = chosen(side, prepare)
    spent = take_turns(works, arguments.rounds, warm_up=2)
    faster = {one: ratios(spent, BARE, one) for one in works}
    figures = [
        figure(claim, faster[f"{side} {main:g}"], "alternating rounds")
        for side, claim in claims.items()
    ]
    details = {
        "encoder": name,
        "clip_s": seconds,
        "bottleneck": WIDTHS[name],
        "seconds": rounded(spent),
        "times_faster": {one: round(statistics.median(runs), 3) for one, runs in faster.items()},
        "real_time_factor": {
            one: round(statistics.median(runs) / seconds, 6) for one, runs in spent.items()
        },
    }
    return figures, details


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Time all encoders."""
    torch.set_num_threads(arguments.threads)
    figures: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    for name, seconds, claims in CASES:
        if arguments.only not in (None, name):
            continue
        found, facts = measure_case(name, seconds, claims, arguments)
        figures += found
        cases.append(facts)
        print_curve(facts)
    facts = environment(arguments.device, arguments.dtype, arguments.threads, "1")
    smoke = arguments.quick or arguments.rounds < ROUNDS or arguments.only is not None
    details = {"cases": cases}
    return result(describe_command("bench_coda.py", words), facts, figures, details, smoke)


def print_curve(facts: Mapping[str, Any]) -> None:
    """Print how much faster every share is."""
    print(f"{facts['encoder']}, {facts['clip_s']:g} s: share of frames, times faster, RTF")
    for name, faster in facts["times_faster"].items():
        print(f"    {name:<20}{faster:>8.2f}x{facts['real_time_factor'][name]:>10.4f}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("usm", "small"), help="one of the encoders")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on a small geometry")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.rounds = 2
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_coda", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

"""What parallel streams cost: time and memory of an encoder and of the diffusion decoder, by P.

    python tools/bench_streams.py --output streams.json
    python tools/bench_streams.py --quick     # a smoke run on a small geometry

Random weights of a size of `speechadapt bench decoders --random`, which do not change the cost. The
encoder takes a batch of clips that fill its window, with the method `parallel_streams`; the decoder
writes every candidate in every step on the frames of such a batch. One stream is the plain network.
Sides take turns, each is compared with one stream round by round. Memory is what a fresh process
(on an accelerator: the allocator) grows by at most in one call, weights not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bench_adapters import ratios, rounded
from bench_facts import describe_command, environment, result, run_tool
from bench_steps import MB, growth, take_turns

from speechadapt.adapters.attach import attach
from speechadapt.bench.random_weights import GEOMETRIES, RandomModel, make
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions

ROUNDS = 9  # of less it is a smoke run
STREAMS = (1, 2, 4)
PARTS = ("encoder", "decoder")
TOKENS_PER_S = 3.0


@dataclass(frozen=True)
class Setting:
    """What the sides have in common.

    Args:
        geometry: A name of `speechadapt.bench.random_weights.GEOMETRIES`.
        batch: Clips of a call.
        prefix: Keys and values of every stream in every self-attention.
        candidates: Texts that the decoder writes for each clip.
        steps: Steps in which it does.
        dtype: Number format.
        device: A torch device.
        threads: CPU threads.
    """

    geometry: str
    batch: int
    prefix: int
    candidates: int
    steps: int
    dtype: str
    device: str
    threads: int


def side(part: str, streams: int, setting: Setting) -> tuple[Callable[[], object], int]:
    """Return a call of the encoder or the decoder with some streams, and what it adds to train."""
    torch.set_num_threads(setting.threads)
    model = make(GEOMETRIES[setting.geometry], TOKENS_PER_S, setting.device, setting.dtype)
    return (_encoder if part == "encoder" else _decoder)(model, streams, setting)


def _encoder(
    model: RandomModel, streams: int, setting: Setting
) -> tuple[Callable[[], object], int]:
    encoder = model.encoder.freeze()
    settings = {"streams": streams, "prefix": setting.prefix}
    handle = attach(encoder, "parallel_streams", config=settings)
    handle.module.eval().requires_grad_(False)
    samples = round((encoder.window_s or 0) * encoder.sample_rate)
    features, lengths = encoder.extract([0.1 * torch.randn(samples)] * setting.batch)
    first = next(encoder.model.parameters())
    features, lengths = features.to(first.device, first.dtype), lengths.to(first.device)

    @torch.inference_mode()
    def work() -> object:
        return encoder(features, lengths)

    return work, handle.num_parameters()


def _decoder(
    model: RandomModel, streams: int, setting: Setting
) -> tuple[Callable[[], object], int]:
    plain, encoder = model.diffusion, model.encoder
    network = DiffusionNetwork(replace(plain.shape, streams=streams, prefix=setting.prefix))
    own = network.state_dict()
    first = plain.head.weight
    network.load_state_dict({**own, **plain.state_dict()})
    network.to(first.device, first.dtype).eval().requires_grad_(False)
    options = DiffusionOptions(
        num_candidates=setting.candidates, num_steps=setting.steps, early_stop=False
    )
    decoder = DiffusionDecoder(network, model.vocabulary, options).eval()
    count = round((encoder.window_s or 0) * encoder.frame_rate)
    frames = torch.randn(setting.batch, count, encoder.dim).to(first)
    lengths = torch.full((setting.batch,), count, device=first.device)
    added = sum(one.numel() for one in network.parameters())
    added -= sum(one.numel() for one in plain.parameters())
    return lambda: decoder.decode(frames, lengths, encoder.frame_rate), added


def grow(part: str, streams: int, setting: Setting) -> int:
    """Make one call in this process; return how many bytes it grew by at most."""
    work, _ = side(part, streams, setting)
    return growth(work, torch.device(setting.device))


def peak(part: str, streams: int, setting: Setting) -> int:
    """Return by how many bytes a fresh process grows in one call."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(grow, part, streams, setting).result()


def measure_part(part: str, setting: Setting, rounds: int) -> list[dict[str, Any]]:
    """Return a row for every number of streams."""
    made = {str(count): side(part, count, setting) for count in STREAMS}
    seconds = take_turns({name: work for name, (work, _) in made.items()}, rounds)
    return [
        {
            "part": part,
            "streams": int(name),
            "parameters_added": added,
            "seconds": rounded({name: seconds[name]})[name],
            "times_one_stream": round(statistics.median(ratios(seconds, name, "1")), 3),
            "memory_growth_mb": round(peak(part, int(name), setting) / MB, 1),
        }
        for name, (_, added) in made.items()
    ]


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure both parts."""
    names = Setting.__dataclass_fields__
    setting = Setting(**{name: getattr(arguments, name) for name in names})
    rows = [
        row for part in arguments.parts for row in measure_part(part, setting, arguments.rounds)
    ]
    for row in rows:
        print(
            f"{row['part']}, {row['streams']} streams: {statistics.median(row['seconds']):.4f} s, "
            f"{row['times_one_stream']:.2f}x, {row['memory_growth_mb']:.1f} MB, "
            f"{row['parameters_added']:,} parameters more"
        )
    facts = environment(arguments.device, arguments.dtype, arguments.threads, str(arguments.batch))
    smoke = arguments.quick or arguments.rounds < ROUNDS
    details = {"setting": asdict(setting), "rows": rows}
    return result(describe_command("bench_streams.py", words), facts, [], details, smoke)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=sorted(GEOMETRIES), default="paper")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prefix", type=int, default=48)
    parser.add_argument("--candidates", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run on a small geometry")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.geometry, arguments.rounds = "tiny", 2
        arguments.prefix, arguments.candidates, arguments.steps = 4, 2, 2
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_streams", given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

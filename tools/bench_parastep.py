"""Ask whether reuse-then-predict gains anything in few-step diffusion decoding, over two processes.

Usage: bench_parastep.py [--model mini-diffusion] [--sets CORPUS/SPLIT ...] [--data ROOT]
                         [--num-steps N] [--num-candidates N] [--rounds N] [--output FILE]

Four ways to take the same steps, the decoder alone timed, frames and networks in memory:

    one       one after the other, one process, one thread
    threads   the same with two threads: what two cores give without any of this
    batched   two steps at once in one process, from reused guesses
    shared    two processes of one thread, a step each, predictions exchanged (gloo)

Ways take turns as processes, in each of which the rounds are timed after one to warm up; the ratio
is that of the medians. Agreement is the share of recordings whose text is that of `one`.

Source: ParaStep, arXiv 2505.14741.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench_facts import describe_command, environment, result, run_tool
from eval_pack import data_root, weights_hash
from torch import distributed

from speechadapt.bench.clips import batches_of, read_clips
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.engines.reuse import DistributedShare
from speechadapt.metrics.report import score_set
from speechadapt.metrics.wer import Pair
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser

BATCH = 8
LIMIT_S = 3600


@dataclass(frozen=True)
class Way:
    """How the steps are taken.

    Args:
        processes: How many.
        threads: Of each.
        ahead: Steps computed at once.
    """

    processes: int
    threads: int
    ahead: int


WAYS = {
    "one": Way(1, 1, 1),
    "threads": Way(1, 2, 1),
    "batched": Way(1, 1, 2),
    "shared": Way(2, 1, 2),
}


@dataclass(frozen=True)
class Work:
    """What every process does.

    Args:
        model: A diffusion decoder.
        sets: Of the pack; the shipped clips where there are none.
        root: The pack.
        options: Of the decoder.
        rounds: How often.
    """

    model: str
    sets: tuple[str, ...]
    root: Path
    options: Mapping[str, Any]
    rounds: int


def decode(work: Work, way: Way, rank: int, folder: Path) -> None:
    """Decode everything in this process, and leave times and texts of the first one."""
    torch.set_num_threads(way.threads)
    recogniser: Any = load(work.model, ahead=way.ahead, early_stop=False, **work.options)
    if not isinstance(recogniser, Recogniser) or not isinstance(
        recogniser.decoder, DiffusionDecoder
    ):
        raise ConfigError(f"--model '{work.model}' is no diffusion decoder.")
    if way.processes > 1:
        place = f"file://{folder}/meeting"
        distributed.init_process_group("gloo", place, rank=rank, world_size=way.processes)
        recogniser.decoder.share = DistributedShare()
    clips = read_clips(work.sets, work.root, recogniser.sample_rate)
    batches = [batch for several in batches_of(clips, BATCH).values() for batch in several]
    with torch.inference_mode():
        heard = [
            recogniser.encoder.encode([torch.from_numpy(clip.waveform) for clip in batch])
            for batch in batches
        ]
    seconds, texts = [], {}
    for _ in range(work.rounds + 1):
        begin = time.perf_counter()
        for batch, (frames, lengths) in zip(batches, heard, strict=True):
            found = recogniser.decoder.decode(frames, lengths, recogniser.encoder.frame_rate)
            texts |= {clip.id: one.text for clip, one in zip(batch, found, strict=True)}
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        said = {clip.id: (clip.text, clip.speaker) for clip in clips}
        rows = [[name, *said[name], text] for name, text in texts.items()]
        atomic_write_json(folder / "found.json", {"seconds": seconds[1:], "rows": rows})
    if way.processes > 1:
        distributed.destroy_process_group()


def run_way(work: Work, way: Way) -> dict[str, Any]:
    """Run one way in processes of its own; return what it left.

    Raises:
        ConfigError: A process failed.
    """
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as name:
        folder = Path(name)
        children = [
            context.Process(target=decode, args=(work, way, rank, folder))
            for rank in range(way.processes)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(LIMIT_S)
        if any(child.exitcode for child in children):
            raise ConfigError("a process of the comparison failed; its error stands above.")
        return dict(read_json(folder / "found.json"))


def compare(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return time, error and agreement of every way."""
    own = {row[0]: row[3] for row in found["one"]["rows"]}
    base = statistics.median(found["one"]["seconds"])
    table = {}
    for name, one in found.items():
        pairs = [Pair(row[0], row[1], row[3], row[2], "en") for row in one["rows"] if row[1]]
        table[name] = {
            "seconds": statistics.median(one["seconds"]),
            "over_one": statistics.median(one["seconds"]) / base,
            "wer": score_set(name, pairs).score.wer,
            "agreement": sum(own[row[0]] == row[3] for row in one["rows"]) / len(own),
        }
    return table


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure every way, print the table, and return it as JSON types."""
    if arguments.num_steps < 2:
        raise ConfigError("--num-steps must be 2 or more, so that two can be taken at once.")
    root = data_root(arguments.data) if arguments.sets else Path()
    options = {"num_steps": arguments.num_steps, "num_candidates": arguments.num_candidates}
    work = Work(arguments.model, tuple(arguments.sets), root, options, arguments.rounds)
    found: dict[str, dict[str, Any]] = {}
    for name, way in WAYS.items():
        found[name] = run_way(work, way)
    table = compare(found)
    print("| way | seconds | over one | WER % | same text |\n|---|---:|---:|---:|---:|")
    for name, row in table.items():
        wer, same = 100 * row["wer"], 100 * row["agreement"]
        seconds = f"{row['seconds']:.2f} | {row['over_one']:.2f}x"
        print(f"| {name} | {seconds} | {wer:.1f} | {same:.0f} % |")
    ratios = [
        shared / own
        for shared, own in zip(found["shared"]["seconds"], found["one"]["seconds"], strict=True)
    ]
    value = {"value": table["shared"]["over_one"], "low": min(ratios), "high": max(ratios)}
    method = f"median, min and max of {len(ratios)} rounds, {len(found['one']['rows'])} recordings"
    figures = [{"claim": "parastep", **value, "method": method}]
    details = {"weights_sha256": weights_hash(arguments.model), **options, "ways": table}
    facts = environment("cpu", "float32", 1, str(BATCH))
    return result(
        describe_command("bench_parastep.py", words, pack=bool(arguments.sets)),
        facts,
        figures,
        details,
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-diffusion")
    parser.add_argument("--sets", nargs="*", default=[], metavar="CORPUS/SPLIT")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--num-steps", type=int, default=8)
    parser.add_argument("--num-candidates", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_tool("bench_parastep", sys.argv[1:] if given is None else given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

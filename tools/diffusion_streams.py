"""What parallel streams in the diffusion decoder do to words: trained alike, with 1, 2 and 4.

    python tools/diffusion_streams.py --split dev
    python tools/diffusion_streams.py --split test --output streams_decoder.json

Every run trains `recipes/diffusion/streams.yaml` further from the bundled decoder, with the same
batches and steps; seeds differ in batches and new weights. What is already trained with the same
settings is not trained again. Errors are summed over the sets and the seeds, and each number of
streams is compared with one stream item by item. What streams cost says `bench_streams.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_facts import ROOT, describe_command, environment, result, run_tool
from eval_pack import choose_sets, data_root, evaluate
from grid import config_hash
from native_quality import read_options

from speechadapt.config.resolve import resolve
from speechadapt.metrics.bootstrap import bootstrap_difference, bootstrap_ratio
from speechadapt.training.loop import train
from speechadapt.training.tasks import diffusion

RECIPE = "diffusion/streams"
SETS = {
    "dev": ("fsdd/dev", "orders/dev", "speech_commands/dev", "wake/dev"),
    "test": ("fsdd/test_speaker", "fsdd/test", "orders", "speech_commands/test", "wake/test"),
}
Edits = list[int]


def trained(streams: int, seed: int, runs: Path, settings: Sequence[str]) -> Path:
    """Train a decoder, unless it is there; return its folder.

    Args:
        streams: Their number.
        seed: Of batches and new weights.
        runs: Where runs are kept.
        settings: Further settings of the recipe, `key=value`.

    Raises:
        ConfigError: The recipe does not fit what is at hand.
    """
    words = [f"recipe={RECIPE}", f"model.streams={streams}", f"trainer.seed={seed}"]
    config: Any = resolve([*words, *settings]).config
    folder = runs / f"streams-{streams}-s{seed}-{config_hash(config)}"
    if not (folder / "last").is_dir():
        train(diffusion.build(config), config.trainer, folder)
    return folder / "last"


def score(
    folder: Path, arguments: argparse.Namespace, options: Mapping[str, Any]
) -> tuple[dict[str, float], Edits, Edits]:
    """Transcribe all sets; return each one's word error rate, and edits and words of every item.

    Args:
        folder: Of the decoder.
        arguments: Of the command line.
        options: Of the decoding.
    """
    import speechadapt

    recogniser = speechadapt.load(str(folder), device="cpu", **options)
    sets = choose_sets(arguments.split, arguments.sets or SETS[arguments.split], None)
    scored, _ = evaluate(recogniser, data_root(arguments.data), sets, arguments.normaliser)
    items = [item.words for one in scored for item in one.score.items]
    rates = {one.name: one.score.wer for one in scored}
    return rates, [one.edits for one in items], [one.reference for one in items]


def compare(found: Mapping[int, Mapping[int, tuple[dict[str, float], Edits, Edits]]]) -> list[Any]:
    """Return a row for every number of streams, against the least of them.

    Args:
        found: What `score` returned, by streams and seed.
    """
    least = min(found)
    rows = []
    for streams, seeds in sorted(found.items()):
        edits = [one for _, errors, _ in seeds.values() for one in errors]
        words = [one for _, _, counts in seeds.values() for one in counts]
        rate = bootstrap_ratio(edits, words)
        row = {
            "streams": streams,
            "wer": rate.estimate,
            "interval": [rate.low, rate.high],
            "each_seed": {str(seed): sum(one[1]) / sum(one[2]) for seed, one in seeds.items()},
            "sets": {
                name: sum(one[0][name] for one in seeds.values()) / len(seeds)
                for name in next(iter(seeds.values()))[0]
            },
        }
        if streams != least:
            other = [one for _, errors, _ in found[least].values() for one in errors]
            between = bootstrap_difference(edits, other, words)
            row["against_least"] = [between.estimate, between.low, between.high]
        rows.append(row)
        print(f"{streams} streams: WER {100 * rate.estimate:.1f} %", file=sys.stderr)
    return rows


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Train what is missing, score everything, and return it as JSON types."""
    torch.set_num_threads(arguments.threads)
    choose_sets(arguments.split, arguments.sets, None)  # a wrong name fails before training
    options = read_options(arguments.option)
    settings = [f"data.root={data_root(arguments.data)}", *arguments.setting]
    found: dict[int, dict[int, Any]] = {one: {} for one in arguments.streams}
    for seed in arguments.seeds:
        for streams in arguments.streams:
            folder = trained(streams, seed, arguments.runs, settings)
            found[streams][seed] = score(folder, arguments, options)
    details = {"split": arguments.split, "options": options, "rows": compare(found)}
    facts = environment("cpu", "float32", arguments.threads, "32")
    command = describe_command("diffusion_streams.py", words, pack=True)
    return result(command, facts, [], details)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 2, 4], metavar="P")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "streams", metavar="FOLDER")
    parser.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=sorted(SETS), default="dev")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these sets")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the decoding"
    )
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    return run_tool("diffusion_streams", sys.argv[1:] if given is None else given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

"""Compare a bridge into a frozen decoder with the model whose decoder it is, clip by clip.

Usage: bridge_quality.py --model BASE --adapter FOLDER [--against mini-whisper] [--data ROOT]
                         [--split dev|test] [--sets NAME ...] [--option NAME=VALUE]
                         [--output FILE]

The ratio is the bridge's word errors over the other model's, all sets together; its interval draws
whole speakers, the same ones for both. Exit code 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bench_facts import describe_command, environment, result, run_tool
from eval_pack import choose_sets, data_root, read_set, transcribe_set, weights_hash
from native_quality import read_options

from speechadapt.core.files import hash_file
from speechadapt.core.seed import generator

if TYPE_CHECKING:
    from speechadapt.metrics.report import SetScore
    from speechadapt.models.recogniser import Recogniser

SIDES = ("bridge", "own encoder")
SETS = {
    "dev": ("fsdd/dev", "orders/dev", "speech_commands/dev", "wake/dev"),
    "test": (
        "fsdd/test_speaker",
        "fsdd/test",
        "connected",
        "orders",
        "speech_commands/test",
        "wake/test",
    ),
}
RESAMPLES = 2000


def read_sets(
    recognisers: Mapping[str, Recogniser], root: Path, split: str, names: Sequence[str], rules: str
) -> dict[str, dict[str, SetScore]]:
    """Let every recogniser write every set; return the scores by set and recogniser."""
    from speechadapt.metrics.report import score_set
    from speechadapt.metrics.wer import Pair

    scores: dict[str, dict[str, SetScore]] = {}
    for name, chosen in choose_sets(split, names or SETS[split], None).items():
        utterances = read_set(root, chosen)
        scores[name] = {}
        for side, recogniser in recognisers.items():
            texts = transcribe_set(recogniser, root, utterances)
            pairs = [
                Pair(one.id, one.text, text, one.speaker, one.lang)
                for one, text in zip(utterances, texts, strict=True)
            ]
            scores[name][side] = score_set(name, pairs, normaliser=rules)
        shown = ", ".join(
            f"{side} {100 * one.score.wer:.1f} %" for side, one in scores[name].items()
        )
        print(f"{name}: {len(utterances)} items, WER {shown}", file=sys.stderr)
    return scores


def errors_by_speaker(scores: Mapping[str, Mapping[str, SetScore]]) -> dict[str, np.ndarray]:
    """Return each speaker's word errors by side; items of no speaker stand for themselves."""
    found: dict[str, np.ndarray] = {}
    for name, sides in scores.items():
        for items in zip(*(sides[side].score.items for side in SIDES), strict=True):
            pair = items[0].pair
            row = np.array([one.words.edits for one in items])
            who = pair.speaker or f"{name}|{pair.id}"
            found[who] = found.get(who, np.zeros(len(SIDES), int)) + row
    return found


def ratio(errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the ratio of the errors with its 95 % interval, speakers drawn with replacement.

    It is None where the other side makes no error; draws in which it makes none are left out.
    """
    table = np.stack(list(errors.values()))
    ours, theirs = (int(value) for value in table.sum(0))
    facts = {"edits": dict(zip(SIDES, (ours, theirs), strict=True)), "clusters": len(table)}
    if theirs == 0:
        return facts | {"ratio": None, "low": None, "high": None}
    drawn = generator("bridge_quality").integers(0, len(table), size=(RESAMPLES, len(table)))
    sums = table[drawn].sum(axis=1)
    kept = sums[:, 1] > 0
    low, high = (float(end) for end in np.quantile(sums[kept, 0] / sums[kept, 1], (0.025, 0.975)))
    return facts | {"ratio": ours / theirs, "low": low, "high": high}


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure everything, print it, and return it as JSON types."""
    import speechadapt
    from speechadapt.metrics.report import to_json

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = data_root(arguments.data)
    choose_sets(arguments.split, arguments.sets, None)  # a wrong name fails before loading
    options = {"device": arguments.device} | read_options(arguments.option)
    bridge = {"adapter": arguments.adapter, "decoder_model": arguments.against}
    recognisers = {
        "bridge": speechadapt.load(arguments.model, **bridge, **options),
        "own encoder": speechadapt.load(arguments.against, **options),
    }
    scores = read_sets(recognisers, root, arguments.split, arguments.sets, arguments.normaliser)
    found = ratio(errors_by_speaker(scores))
    figures = []
    if found["ratio"] is not None:
        how = f"95 % bootstrap over {found['clusters']} speakers or items, all sets together"
        values = {"value": found["ratio"], "low": found["low"], "high": found["high"]}
        figures = [{"claim": "bridge_errors", **values, "method": how}]
    details = {
        "model": arguments.model if not Path(arguments.model).is_dir() else None,
        "against": arguments.against if not Path(arguments.against).is_dir() else None,
        "weights_sha256": [weights_hash(arguments.model), weights_hash(arguments.against)],
        "adapter_sha256": hash_file(arguments.adapter / "adapter_model.safetensors"),
        "together": found,
        "sets": [
            {"set": name, **{side: to_json(one) for side, one in sides.items()}}
            for name, sides in scores.items()
        ],
    }
    facts = environment(arguments.device, "float32", torch.get_num_threads(), "32")
    return result(describe_command("bridge_quality.py", words, pack=True), facts, figures, details)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="whose encoder hears")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the saved bridge")
    parser.add_argument("--against", default="mini-whisper", help="the model of the decoder")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=sorted(SETS), default="dev")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these sets")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the decoder"
    )
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: torch's default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    return run_tool("bridge_quality", sys.argv[1:] if given is None else given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())

"""Measure what a Whisper loses at its clips' native length, and what an adapter wins back.

Usage: native_quality.py --model NAME_OR_FOLDER --adapter FOLDER [--data ROOT] [--split dev|test]
                         [--sets NAME ...] [--option NAME=VALUE] [--seconds S ...] [--runs N]
                         [--output FILE]

Reads every set three times: on the padded window, at native length, and at native length with the
adapter. The recovered share is (errors added by native length - errors added with the adapter) over
errors added by native length, summed over the sets; its interval draws whole speakers, the same
ones for all three. The encoder is timed on noise, because only the length counts. Exit code 1 where
a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bench_facts import describe_command, environment, print_figures, result
from bench_native import interval, timed
from eval_pack import NamedSet, choose_sets, data_root, read_set, transcribe_set, weights_hash

from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import atomic_write_json
from speechadapt.core.seed import generator

if TYPE_CHECKING:
    from speechadapt.adapters.handle import Handle
    from speechadapt.metrics.report import SetScore
    from speechadapt.models.recogniser import Recogniser

VARIANTS = ("full", "native", "adapted")
LABELS = {
    "full": "padded window",
    "native": "native length",
    "adapted": "native length, adapter",
    "merged": "native length, merged",
}
RESAMPLES = 2000
NAME = "adapter"  # what `speechadapt.load` calls it


@dataclass(frozen=True)
class Errors:
    """Word edits of one item, read three times.

    Args:
        cluster: Its speaker, or itself where nobody names one.
        edits: Edits by variant.
    """

    cluster: str
    edits: Mapping[str, int]


def load_sides(arguments: argparse.Namespace) -> tuple[Recogniser, Recogniser]:
    """Return the model on its padded window, and at native length with its adapter.

    Raises:
        ConfigError: The model is no Whisper.
    """
    import speechadapt

    options = {"device": arguments.device} | read_options(arguments.option)
    padded = speechadapt.load(arguments.model, **options)
    if padded.encoder.family != "whisper":
        raise ConfigError(
            f"{padded.name} is a {padded.encoder.family}; only Whisper has a padded window and a "
            "native length."
        )
    adapted = speechadapt.load(
        arguments.model, adapter=arguments.adapter, padding="native", **options
    )
    return padded, adapted


def read_options(given: Sequence[str]) -> dict[str, Any]:
    """Return the decoder's options from NAME=VALUE, values read as JSON where they are.

    Raises:
        ConfigError: A word is no NAME=VALUE.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--option takes NAME=VALUE, got '{text}'.")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        options[name] = tuple(read) if isinstance(read, list) else read
    return options


def read_all(
    padded: Recogniser, adapted: Recogniser, root: Path, sets: Mapping[str, NamedSet], rules: str
) -> tuple[dict[str, dict[str, SetScore]], dict[str, list[Errors]]]:
    """Read every set in every way; return the scores by set and variant, and each item's edits."""
    from speechadapt.adapters.attach import active
    from speechadapt.metrics.report import score_set
    from speechadapt.metrics.wer import Pair

    scores: dict[str, dict[str, SetScore]] = {}
    errors: dict[str, list[Errors]] = {}
    for name, chosen in sets.items():
        utterances = read_set(root, chosen)
        texts = {"full": transcribe_set(padded, root, utterances)}
        for variant, selected in (("native", None), ("adapted", NAME)):
            with active(adapted.encoder, selected):
                texts[variant] = transcribe_set(adapted, root, utterances)
        scores[name] = {}
        for variant in VARIANTS:
            pairs = [
                Pair(one.id, one.text, text, one.speaker, one.lang)
                for one, text in zip(utterances, texts[variant], strict=True)
            ]
            scores[name][variant] = score_set(name, pairs, normaliser=rules)
        errors[name] = item_errors(name, scores[name])
        shown = ", ".join(
            f"{LABELS[variant]} {100 * scores[name][variant].score.wer:.1f} %"
            for variant in VARIANTS
        )
        print(f"{name}: {len(utterances)} items, WER {shown}", file=sys.stderr)
    return scores, errors


def item_errors(name: str, scores: Mapping[str, SetScore]) -> list[Errors]:
    """Return the edits of every item of a set."""
    found = []
    for items in zip(*(scores[variant].score.items for variant in VARIANTS), strict=True):
        pair = items[0].pair
        edits = {variant: item.words.edits for variant, item in zip(VARIANTS, items, strict=True)}
        found.append(Errors(pair.speaker or f"{name}|{pair.id}", edits))
    return found


def recovered(errors: Sequence[Errors]) -> dict[str, Any]:
    """Return the recovered share with its 95 % interval, clusters drawn with replacement.

    Draws in which native length adds no error have no share; how many there were is said. Without
    any added error at all the share is None.
    """
    clusters: dict[str, np.ndarray] = {}
    for one in errors:
        row = np.array([one.edits[variant] for variant in VARIANTS])
        clusters[one.cluster] = clusters.get(one.cluster, np.zeros(3, int)) + row
    table = np.stack(list(clusters.values()))
    full, native, adapted = (int(value) for value in table.sum(0))
    facts = {"edits": {"full": full, "native": native, "adapted": adapted}}
    facts |= {"clusters": len(table), "resamples": RESAMPLES}
    if native <= full:
        return facts | {"share": None, "low": None, "high": None, "without_added_errors": None}
    drawn = generator("native_quality").integers(0, len(table), size=(RESAMPLES, len(table)))
    sums = table[drawn].sum(axis=1)
    added = sums[:, 1] - sums[:, 0]
    kept = added > 0
    shares = (sums[kept, 1] - sums[kept, 2]) / added[kept]
    low, high = (float(end) for end in np.quantile(shares, (0.025, 0.975)))
    return facts | {
        "share": (native - adapted) / (native - full),
        "low": low,
        "high": high,
        "without_added_errors": float(1 - kept.mean()),
    }


@torch.inference_mode()
def time_encoders(
    padded: Recogniser, adapted: Recogniser, seconds: float, runs: int
) -> dict[str, Any]:
    """Return seconds per clip by variant, features left out, and how many times faster each is.

    The variants take turns. The adapter is merged and unmerged again.
    """
    from speechadapt.adapters.attach import active
    from speechadapt.adapters.handle import attachment
    from speechadapt.adapters.merge import merge, unmerge

    noise = torch.Generator().manual_seed(0)
    clip = 0.1 * torch.randn(round(seconds * padded.sample_rate), generator=noise)
    times: dict[str, list[float]] = {name: [] for name in LABELS}

    def run(name: str, recogniser: Recogniser, selected: str | None) -> None:
        encoder = recogniser.encoder
        first = next(encoder.model.parameters())
        features, lengths = encoder.extract([clip.to(first.device)])
        batch = features.to(first.dtype), lengths
        with active(encoder, selected):
            taken, _ = timed(lambda: encoder(*batch))
        times[name].append(taken)

    merges = attachment(adapted.encoder, NAME).method.merges
    for turn in range(runs + 1):
        run("full", padded, None)
        run("native", adapted, None)
        run("adapted", adapted, NAME)
        if merges:
            merge(adapted.encoder, NAME)
            run("merged", adapted, NAME)
            unmerge(adapted.encoder, NAME)
        if turn == 0:  # nothing is warm yet
            times = {name: [] for name in LABELS}
    times = {name: values for name, values in times.items() if values}
    return {
        "clip_s": seconds,
        "runs": runs,
        "seconds": {name: interval(values) for name, values in times.items()},
        "times_faster": {name: interval(times["full"], values) for name, values in times.items()},
    }


def parameters_of(adapted: Recogniser) -> dict[str, float]:
    """Return the parameters of the adapter and of the encoder, and the share of the one."""
    from speechadapt.adapters.handle import attachment

    handle: Handle = attachment(adapted.encoder, NAME)
    whole = sum(one.numel() for one in adapted.encoder.model.parameters())
    count = handle.num_parameters()
    return {"adapter": count, "encoder": whole, "share": count / whole}


def figures_of(found: Mapping[str, Any], sizes: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the claims that the measurement stands for."""
    share = 100 * sizes["share"]
    figures = [
        {
            "claim": "native_parameters",
            "value": share,
            "low": share,
            "high": share,
            "method": f"{sizes['adapter']:,.0f} of {sizes['encoder']:,.0f}",
        }
    ]
    if found["share"] is not None:
        low, value, high = (100 * found[key] for key in ("low", "share", "high"))
        how = f"95 % bootstrap over {found['clusters']} speakers or items, all sets together"
        figures.insert(
            0,
            {
                "claim": "native_recovered",
                "value": value,
                "low": low,
                "high": high,
                "method": how,
            },
        )
    return figures


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure everything, print it, and return it as JSON types."""
    from speechadapt.core.files import hash_file
    from speechadapt.metrics.report import to_json

    padded, adapted = load_sides(arguments)
    language = read_options(arguments.option).get("language", padded.language)
    sets = choose_sets(arguments.split, arguments.sets, language)
    root = data_root(arguments.data)
    scores, errors = read_all(padded, adapted, root, sets, arguments.normaliser)
    together = recovered([one for items in errors.values() for one in items])
    sizes = parameters_of(adapted)
    times = [time_encoders(padded, adapted, one, arguments.runs) for one in arguments.seconds]
    details = {
        "model": arguments.model if not Path(arguments.model).is_dir() else None,
        "weights_sha256": weights_hash(arguments.model),
        "adapter_sha256": hash_file(arguments.adapter / "adapter_model.safetensors"),
        "parameters": sizes,
        "recovered": together,
        "sets": [
            {
                "set": name,
                "recovered": recovered(errors[name]),
                **{variant: to_json(scored[variant]) for variant in VARIANTS},
            }
            for name, scored in scores.items()
        ],
        "encoder_time": times,
    }
    print_tables(details)
    facts = environment(arguments.device, "float32", torch.get_num_threads(), "32; times: 1")
    figures = figures_of(together, sizes)
    return result(describe_command("native_quality.py", words, pack=True), facts, figures, details)


def print_tables(details: Mapping[str, Any]) -> None:
    """Print error rates by set and times by length."""
    columns = [LABELS[variant] for variant in VARIANTS]
    print("| set | " + " | ".join(f"WER, {name}" for name in columns) + " | recovered |")
    print("|---|" + "---|" * (len(columns) + 1))
    for one in details["sets"]:
        cells = [shown_rate(one[variant]) for variant in VARIANTS]
        print(f"| {one['set']} | {' | '.join(cells)} | {shown_share(one['recovered'])} |")
    print(
        f"\nAll sets together: {shown_share(details['recovered'])} of the added errors recovered."
    )
    for one in details["encoder_time"]:
        for name, value in one["seconds"].items():
            faster = one["times_faster"][name]["median"]
            print(
                f"{one['clip_s']:g} s, {LABELS[name]}: {1000 * value['median']:.1f} ms, "
                f"{faster:.2f}x faster than the padded window"
            )


def shown_rate(scored: Mapping[str, Any]) -> str:
    ends = scored["wer_interval"]
    return f"{100 * scored['wer']:.1f} % [{100 * ends['low']:.1f}, {100 * ends['high']:.1f}]"


def shown_share(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return "no errors added"
    return f"{100 * found['share']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="bundled model, folder or hub id")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the saved adapter")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these sets")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the decoder, such as language=en",
    )
    parser.add_argument("--seconds", nargs="+", type=float, default=[2.0, 5.0], help="timed clips")
    parser.add_argument("--runs", type=int, default=21, help="timed passes of each variant")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    arguments = parse(given)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        data_root(arguments.data)
        choose_sets(arguments.split, arguments.sets, None)  # a wrong name fails before loading
        found = measure(arguments, given)
    except SpeechadaptError as error:
        print(f"native_quality: {error}", file=sys.stderr)
        return 2
    met = print_figures(found["figures"])
    if arguments.output is not None:
        atomic_write_json(arguments.output, found)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

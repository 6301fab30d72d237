"""Turn a trained cleaner and a trained vocoder into a bundled restorer with its card.

Usage: package_restorer.py CLEANER_RUN VOCODER --name mini-restorer --recipes RECIPE ...
                           --summary TEXT --limits FILE [--base FOLDER] [--data ROOT]
                           [--chain RUN ...] [--scores FILE ...] [--signal generated|masked]

CLEANER_RUN/best and VOCODER (such as VOCODER_RUN/last) are put together in half precision in
speechadapt/pretrained/NAME/, with the layers of the frozen encoder that they need where that one is
not bundled itself. Beside them come `training_ids.txt` (the union over both runs, those of
`--chain` and the encoder's own), `card.json` and the README.md rendered from it. Scores are read
from what `eval_restoration.py --output` wrote, or `speechadapt evaluate restoration --json` printed
(a file a test set, named for it); nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import package_model

from speechadapt.adapters import store
from speechadapt.core.errors import DataError, SpeechadaptError
from speechadapt.core.files import atomic_write_text, hash_file, hash_json
from speechadapt.models.build import find_model
from speechadapt.models.card import (
    TRAINING_IDS_FILE,
    ModelCard,
    Score,
    render_card,
    training_ids,
    write_card,
)
from speechadapt.models.restorer_folder import assemble
from speechadapt.restoration.request import SIGNALS

SHOWN = ("lsd_db", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_sig", "pesq", "estoi", "speaker")
MOST_MB = 10.0


def read_scores(files: Sequence[Path]) -> tuple[Score, ...]:
    """Return the scores of restored files, with those before and the change in the note."""
    found: list[Score] = []
    for path in files:
        report = json.loads(path.read_text())
        groups = {name: arms["restored"] for name, arms in report.get("groups", {}).items()}
        for name, group in (groups or {path.stem: report}).items():
            found += _scores_of(name, group)
    return tuple(found)


def _scores_of(name: str, group: Mapping[str, Any]) -> Iterator[Score]:
    for metric in SHOWN:
        row = group["scores"].get(metric, {})
        after = row.get("degraded")
        if after and after["mean"] is not None:
            ends = after["mean"], after["low"], after["high"]
            yield Score(name, metric, *ends, group["items"] - after["missing"], _note(row))


def _note(row: Mapping[str, Any]) -> str:
    before, change = row.get("before"), row.get("change")
    if not before or before["mean"] is None or not change or change["mean"] is None:
        return ""
    interval = f"{change['low']:+.3f} to {change['high']:+.3f}"
    return f"before {before['mean']:.3f}; change {change['mean']:+.3f} ({interval})"


def numbers(path: Path) -> int:
    """Return how many numbers a file of weights holds."""
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())


def package(arguments: argparse.Namespace) -> ModelCard:
    """Write the bundled folder and return its card.

    Raises:
        DataError: The weights are larger than a bundled restorer may be.
    """
    cleaner, target = arguments.run / "best", package_model.PRETRAINED / arguments.name
    base = find_model(arguments.base or store.read(cleaner).base["name"])
    shutil.rmtree(target, ignore_errors=True)
    # what is bundled already is in every clone once
    keeps = base.parent != package_model.PRETRAINED
    how = {"keeps_encoder": keeps, "signal": arguments.signal}
    assemble(cleaner, arguments.vocoder, target, base=base, half=True, **how)
    files = sorted(target.rglob("*.safetensors"))
    size = sum(path.stat().st_size for path in files) / 1e6
    if size > MOST_MB:
        shutil.rmtree(target)
        raise DataError(f"the restorer takes {size:.1f} MB; a bundled one may take {MOST_MB:g}.")
    runs = [arguments.run, arguments.vocoder.parent, *arguments.chain]
    ids = sorted({*package_model.training_ids(runs), *training_ids(base)})
    atomic_write_text(target / TRAINING_IDS_FILE, "".join(f"{name}\n" for name in ids))
    card = ModelCard(
        name=arguments.name,
        summary=arguments.summary,
        encoder="w2v_bert",
        parameters=sum(map(numbers, files)),
        # Recordings under a share-alike licence are among the encoder's training data.
        licence="CC BY-SA 4.0",
        recipes=tuple(arguments.recipes),
        data=package_model.corpora(arguments.data, set(ids)),
        scores=read_scores(arguments.scores),
        limits=tuple(arguments.limits.read_text().strip().splitlines()),
        weights_sha256=hash_json(
            {path.relative_to(target).as_posix(): hash_file(path) for path in files}
        ),
    )
    write_card(target, card)
    atomic_write_text(target / "README.md", render_card(card))
    return card


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the cleaner's run")
    parser.add_argument("vocoder", type=Path, help="the vocoder's folder, RUN/best or RUN/last")
    parser.add_argument("--name", default="mini-restorer")
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--limits", type=Path, required=True, help="one sentence a line")
    parser.add_argument("--base", help="the encoder, where the cleaner's name does not find it")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA"))
    parser.add_argument("--chain", type=Path, nargs="*", default=[], help="runs they started from")
    parser.add_argument("--scores", type=Path, nargs="*", default=[])
    parser.add_argument("--signal", choices=SIGNALS, default=SIGNALS[0], help="what comes out")
    return parser.parse_args(arguments)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    try:
        card = package(parse(sys.argv[1:] if words is None else words))
    except SpeechadaptError as error:
        print(f"package_restorer: {error}", file=sys.stderr)
        return 2
    print(f"{card.name}: {card.parameters / 1e6:.2f} M parameters, {len(card.scores)} scores")
    return 0


if __name__ == "__main__":
    sys.exit(main())

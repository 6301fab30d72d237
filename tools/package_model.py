"""Turn a finished training run into a bundled model with its card.

Usage: package_model.py RUN --name NAME --recipes RECIPE ... --summary TEXT --limits FILE
                        [--data ROOT] [--chain RUN ...] [--scores FILE ...]

Copies RUN/best to speechadapt/pretrained/NAME/, writes `training_ids.txt` (the union over RUN and
the runs it started from), `card.json` and the README.md rendered from it. Scores are read from the
files `eval_pack.py --output` wrote; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError, SpeechadaptError
from speechadapt.core.files import atomic_write_text, hash_file, read_lines
from speechadapt.decoders.masked_diffusion.store import MODEL_TYPE, read_heard
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.models.card import (
    Corpus,
    ModelCard,
    Score,
    render_card,
    scores_from_report,
    write_card,
)

PRETRAINED = Path(__file__).resolve().parents[1] / "speechadapt" / "pretrained"
FAMILIES = {
    "wav2vec2-bert": ("w2v_bert", "ctc"),
    "whisper": ("whisper", "whisper_ar"),
    "audio-spectrogram-transformer": ("ast", ""),
}
LEFT_OUT = {"training.json"}


def copy_run(run: Path, target: Path, name: str = "best") -> None:
    """Copy the best model of a run, or its last one, over a bundled folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for source in sorted((run / name).iterdir()):
        if source.name not in LEFT_OUT:
            copy = target / source.name
            shutil.copyfile(source, copy)
            copy.chmod(0o644)


def training_ids(runs: Sequence[Path]) -> list[str]:
    """Return the ids that any of the runs may have read, sorted."""
    return sorted({line for run in runs for line in (run / "training_ids.txt").read_text().split()})


def corpora(root: Path, ids: set[str]) -> tuple[Corpus, ...]:
    """Return what the ids amount to, by corpus, with licences and manifest hashes.

    Raises:
        DataError: An id is not in the pack, or not in a training split.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found: set[str] = set()
    for path in sorted((root / "manifests").glob("*.jsonl")):
        for _, row in read_lines(path):
            if row["id"] in ids:
                rows[path.stem].append(row)
                found.add(row["id"])
                if row["split"] != "train":
                    raise DataError(f"'{row['id']}' is of the split '{row['split']}', not train.")
    if ids - found:
        raise DataError(f"{len(ids - found)} training ids are not in the pack: {min(ids - found)}.")
    return tuple(
        Corpus(
            name=name,
            split="train",
            items=len(members),
            hours=round(sum(row["duration"] for row in members) / 3600, 3),
            licence=", ".join(sorted({row["licence"] for row in members})),
            manifest_sha256=hash_file(root / "manifests" / f"{name}.jsonl"),
        )
        for name, members in rows.items()
    )


def scores(files: Sequence[Path]) -> tuple[tuple[Score, ...], tuple[str, ...]]:
    """Read scores and the commands that measured them from evaluation files."""
    found: list[Score] = []
    commands: list[str] = []
    for path in files:
        report = json.loads(path.read_text())
        commands.append(report["command"])
        decoding = " (beam, n-gram)" if "--lm" in report["command"] else ""
        measured = f"measured {report['date']} on {report['environment']}"
        for score in scores_from_report(report):
            note = "; ".join(part for part in (score.note, measured) if part)
            found.append(replace(score, test_set=score.test_set + decoding, note=note))
    return tuple(found), tuple(commands)


def families(config: dict[str, Any]) -> tuple[str, str]:
    """Return the families of encoder and decoder of a model folder.

    A masked-diffusion folder holds the decoder alone and names a bundled model, whose encoder it
    hears with.

    Args:
        config: Its `config.json`.

    Raises:
        DataError: The encoder named is not bundled, or holds other weights than were heard.
    """
    if config["model_type"] != MODEL_TYPE:
        return FAMILIES[config["model_type"]]
    heard = read_heard(config, "config.json")
    if heard is None:
        raise DataError("a model of text alone was to be bundled; train it on an encoder's frames.")
    folder = PRETRAINED / heard.name
    if not folder.is_dir() or fingerprint_folder(folder) != heard.fingerprint:
        raise DataError(
            f"the decoder hears with '{heard.name}', which is not bundled with those weights. "
            "Bundle the encoder first, or train on the one that is."
        )
    own = json.loads((folder / "config.json").read_text())
    return FAMILIES[own["model_type"]][0], MODEL_TYPE


def package(arguments: argparse.Namespace) -> ModelCard:
    """Write the bundled folder and return its card."""
    from safetensors import safe_open

    target = PRETRAINED / arguments.name
    copy_run(arguments.run, target)
    ids = training_ids([arguments.run, *arguments.chain])
    atomic_write_text(target / "training_ids.txt", "".join(f"{name}\n" for name in ids))
    encoder, decoder = families(json.loads((target / "config.json").read_text()))
    with safe_open(target / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())
    measured, commands = scores(arguments.scores)
    card = ModelCard(
        name=arguments.name,
        summary=arguments.summary,
        encoder=encoder,
        decoder=decoder,
        parameters=parameters,
        # Recordings under a share-alike licence are among the training data.
        licence="CC BY-SA 4.0",
        languages=("en",) if decoder else (),
        recipes=tuple(arguments.recipes),
        data=corpora(arguments.data, set(ids)),
        scores=measured,
        limits=tuple(arguments.limits.read_text().strip().splitlines()),
        commands=commands,
        step=json.loads((arguments.run / "best" / "training.json").read_text())["step"],
        weights_sha256=hash_file(target / "model.safetensors"),
    )
    write_card(target, card)
    atomic_write_text(target / "README.md", render_card(card))
    return card


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--limits", type=Path, required=True, help="one sentence a line")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA"))
    parser.add_argument("--chain", type=Path, nargs="*", default=[], help="runs it started from")
    parser.add_argument("--scores", type=Path, nargs="*", default=[])
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command line; return its exit code."""
    try:
        card = package(parse(sys.argv[1:]))
    except SpeechadaptError as error:
        print(f"package_model: {error}", file=sys.stderr)
        return 2
    print(f"{card.name}: {card.parameters / 1e6:.2f} M parameters, {len(card.scores)} scores")
    return 0


if __name__ == "__main__":
    sys.exit(main())

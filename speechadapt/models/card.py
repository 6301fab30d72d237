"""Model cards: what a bundled or local model was trained on, how it scores and what it cannot do.

A model folder is an ordinary transformers folder. Beside its weights, `card.json` states the facts
below and `training_ids.txt` names every training item, one id a line. The folder's README.md is
rendered from the card, never written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from speechadapt.core.errors import CatalogError, CheckpointError, near_misses
from speechadapt.core.files import atomic_write_json

CARD_FILE = "card.json"
TRAINING_IDS_FILE = "training_ids.txt"
_OWN_SCALE = ("dnsmos", "pesq", "stoi", "estoi", "speaker")


@dataclass(frozen=True)
class Corpus:
    """One corpus a model was trained on.

    Args:
        name: The corpus.
        split: The split used; always a training split.
        hours: Hours of audio.
        licence: Its licence.
        items: Recordings used.
        manifest_sha256: Hash of its manifest, where there is one.
    """

    name: str
    split: str
    hours: float
    licence: str
    items: int | None = None
    manifest_sha256: str = ""


@dataclass(frozen=True)
class Score:
    """One measured score.

    Args:
        test_set: What it was measured on.
        metric: `wer`, `cer`, `accuracy` ...
        value: The score as a fraction.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        items: Utterances scored.
        note: Anything a reader must know (one unseen speaker, texts also in training ...).
    """

    test_set: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    items: int | None = None
    note: str = ""


@dataclass(frozen=True)
class ModelCard:
    """The facts about one model.

    Args:
        name: The model's name, equal to its folder's.
        summary: One sentence.
        encoder: The encoder family (`w2v_bert`, `whisper`, `ast`).
        decoder: The decoder (`ctc`, `whisper_ar`), or empty for an encoder alone.
        parameters: Number of parameters.
        languages: BCP 47 codes.
        licence: Licence of the weights.
        recipes: The recipes that made it, in order.
        data: The corpora it was trained on.
        scores: Scores on held-out speakers.
        limits: What it cannot do, one sentence each.
        commands: The commands that measured the scores.
        step: The step of the last recipe at which dev scored best.
        weights_sha256: Hash of the stored weights.
    """

    name: str
    summary: str
    encoder: str
    parameters: int
    licence: str
    decoder: str = ""
    languages: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    data: tuple[Corpus, ...] = ()
    scores: tuple[Score, ...] = ()
    limits: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    step: int | None = None
    weights_sha256: str = ""


def bundled_models(folder: Path | None = None) -> dict[str, Path]:
    """List the models that came with the package.

    Args:
        folder: Where to look; the package's own `pretrained` folder by default.

    Returns:
        Model folders by name, sorted; a folder counts when it holds a `config.json`.
    """
    root = folder or Path(__file__).parents[1] / "pretrained"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def find_bundled(name: str, folder: Path | None = None) -> Path:
    """Return the folder of one bundled model.

    Raises:
        CatalogError: No bundled model has that name; near misses are named.
    """
    models = bundled_models(folder)
    if name not in models:
        raise CatalogError(f"no bundled model is named '{name}'.{near_misses(name, models)}")
    return models[name]


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder.

    Raises:
        CheckpointError: The card is missing, is not JSON, or has unknown or missing fields.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise CheckpointError(f"model folder '{folder.name}' has no {CARD_FILE}.")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{CARD_FILE} of '{folder.name}' is not JSON: {error}.") from error
    facts = dict(_checked(ModelCard, row, folder.name))
    for name in ("languages", "recipes", "limits", "commands"):
        facts[name] = tuple(facts.get(name, ()))
    for name, kind in (("data", Corpus), ("scores", Score)):
        items = facts.get(name, ())
        facts[name] = tuple(kind(**_checked(kind, item, folder.name)) for item in items)
    return ModelCard(**facts)


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `card.json` into a model folder, whole or not at all."""
    atomic_write_json(folder / CARD_FILE, asdict(card))


def training_ids(folder: Path) -> frozenset[str]:
    """Return the ids of every item a model was trained on.

    Raises:
        CheckpointError: The model folder has no list of training ids.
    """
    path = folder / TRAINING_IDS_FILE
    if not path.is_file():
        raise CheckpointError(f"model folder '{folder.name}' has no {TRAINING_IDS_FILE}.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def scores_from_report(report: Mapping[str, Any]) -> tuple[Score, ...]:
    """Turn a report of `tools/eval_pack.py` into the scores of a card.

    Args:
        report: The JSON of `--output`: `sets`, each with `set, headline, items`, the rate under the
            headline's name and its interval.

    Returns:
        One score per set that has a rate, in the report's order.
    """
    scores: list[Score] = []
    for row in report["sets"]:
        metric = row["headline"]
        if row[metric] is None:
            continue
        interval = row[f"{metric}_interval"] or {}
        items = row["items"]
        count = len(items) if isinstance(items, list) else items
        note = row.get("note", "")
        ends = (interval.get("low"), interval.get("high"))
        scores.append(Score(row["set"], metric, row[metric], *ends, count, note))
    return tuple(scores)


def render_card(card: ModelCard) -> str:
    """Return the card as the Markdown page of its folder."""
    facts = [
        ("encoder", card.encoder),
        ("decoder", card.decoder or "none (frames only)"),
        ("parameters", f"{card.parameters / 1e6:.1f} million"),
        ("languages", ", ".join(card.languages) or "none"),
        ("licence of the weights", card.licence),
        ("made by", ", ".join(f"`{recipe}`" for recipe in card.recipes) or "unknown"),
        ("chosen on dev at step", card.step),
        ("weights, SHA-256", card.weights_sha256),
    ]
    facts = [(name, value) for name, value in facts if value not in (None, "")]
    data = [
        (one.name, one.split, one.items or "", f"{one.hours:.2f}", one.licence, one.manifest_sha256)
        for one in card.data
    ]
    scores = [
        (score.test_set, score.metric.upper(), format_score(score), score.items or "", score.note)
        for score in card.scores
    ]
    parts = [f"# {card.name}", card.summary, table(("fact", "value"), facts)]
    if data:
        header = ("corpus", "split", "items", "hours", "licence", "manifest, SHA-256")
        parts += ["## Trained on", table(header, data)]
        parts += ["`training_ids.txt` names every item."]
    if scores:
        titles = ("test set", "metric", "score (95 % interval)", "items", "note")
        parts += ["## Scores", table(titles, scores)]
    if card.commands:
        parts += ["Measured with the stored weights by:"]
        parts += ["\n".join(f"- `{command}`" for command in card.commands)]
    if card.limits:
        parts += ["## What it cannot do", "\n".join(f"- {limit}" for limit in card.limits)]
    return "\n\n".join(parts) + "\n"


def format_score(score: Score) -> str:
    """Return a rate in per cent with its interval, such as `7.2 % (5.9 to 8.6)`.

    Scores of sound have their own units: decibels (`lsd_db`), the scale of a listener, or a cosine
    (`speaker`).
    """
    decibels = score.metric.endswith("_db")
    plain = decibels or score.metric.startswith(_OWN_SCALE)
    factor, digits = (1, 2) if plain else (100, 1)
    text = f"{factor * score.value:.{digits}f}" + (" dB" if decibels else "" if plain else " %")
    if score.low is not None and score.high is not None:
        text += f" ({factor * score.low:.{digits}f} to {factor * score.high:.{digits}f})"
    return text


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    titles = list(header)
    lines: list[list[object]] = [titles, ["---"] * len(titles), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _checked(kind: type[Any], row: Any, owner: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise CheckpointError(f"{CARD_FILE} of '{owner}': expected an object, got {row!r}.")
    known = {item.name: item for item in fields(kind)}
    for name in row:
        if name not in known:
            misses = near_misses(name, known)
            raise CheckpointError(f"{CARD_FILE} of '{owner}': unknown field '{name}'.{misses}")
    missing = [name for name, item in known.items() if _is_required(item) and name not in row]
    if missing:
        raise CheckpointError(f"{CARD_FILE} of '{owner}' lacks {', '.join(missing)}.")
    return row


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING

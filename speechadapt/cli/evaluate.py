"""`speechadapt evaluate`: scores of restored recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from speechadapt.metrics.quality_report import Pair, PairScore, Scored

HELP = "Score restored recordings against clean ones."

_MODELS = ("speaker", "words")
_JUDGE = "mini-whisper"  # shares no weights with a restorer made from mini-usm

app = typer.Typer(help=HELP, no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Score restored recordings against clean ones."""


@app.command("restoration")
def restoration(
    reference: Annotated[
        Path, typer.Argument(metavar="REF", help="A clean file, or a folder of them.")
    ],
    degraded: Annotated[
        Path,
        typer.Argument(metavar="DEG", help="The file to score, or a folder with the same names."),
    ],
    before: Annotated[
        Path | None,
        typer.Option(
            help="What DEG was made from: scored too, with the change.", show_default=False
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="Scores by models: pesq, stoi, dnsmos (extra 'metrics'), speaker, words, none; "
            "may be given again. speaker=FOLDER and words=MODEL name the judge. By default all "
            "but words.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON in place of a table.")
    ] = False,
    per_item: Annotated[
        Path | None,
        typer.Option(help="Write the scores of every file to this JSONL file.", show_default=False),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="A folder for spectrograms of the worst and the median file.", show_default=False
        ),
    ] = None,
) -> None:
    """Score recordings against clean ones of the same names, at the clean ones' sample rate.

    Log-spectral distance, SI-SDR, PESQ, STOI and ESTOI, DNSMOS, the cosine of speakers, bandwidth,
    level, clipping and length drift: means with 95 % intervals. A score that a file does not have
    is missing, never 0. Words, as mini-whisper hears them where no other recogniser is named, are
    scored against the text beside a clean file (`x.txt`), or against what is heard in it.
    """
    from speechadapt.core.files import write_lines
    from speechadapt.metrics.quality_pictures import draw
    from speechadapt.metrics.quality_report import find_pairs, item_rows, markdown_table, summary

    items, heard = _scored(find_pairs(reference, degraded, before), score)
    if per_item is not None:
        write_lines(per_item, item_rows(items))
    if pictures is not None:
        draw(items, pictures)
    found = summary(items)
    if as_json:
        print(json.dumps(found | heard.found, ensure_ascii=False, indent=2))
    else:
        print(markdown_table(found) + heard.table)


@dataclass(frozen=True)
class _Heard:
    """What was heard in the recordings: JSON values, and a table; both empty where nobody did."""

    found: dict[str, Any] = field(default_factory=dict)
    table: str = ""


def _scored(pairs: Sequence[Pair], score: list[str] | None) -> tuple[list[Scored], _Heard]:
    """Score pairs by all that was asked for."""
    from speechadapt.metrics.quality_report import score_pair

    listeners, models = _asked(score)
    judges = _speakers(models["speaker"]) if "speaker" in models else []
    heard = _words(pairs, models["words"] or _JUDGE) if "words" in models else _Heard()
    return [score_pair(pair, listeners, judges) for pair in pairs], heard


def _asked(given: list[str] | None) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Return the listeners and the models that were asked for, these by what they judge."""
    from speechadapt.core.errors import ConfigError, near_misses
    from speechadapt.metrics.quality_listener import LISTENERS, check_listeners
    from speechadapt.models.card import bundled_models
    from speechadapt.models.speaker import DEFAULT

    usual = (*LISTENERS, *(["speaker"] if DEFAULT in bundled_models() else []))
    listeners: list[str] = []
    models: dict[str, str | None] = {}
    for text in () if given == ["none"] else given or usual:
        name, _, model = text.partition("=")
        if name in _MODELS:
            models[name] = model or None
        elif text in LISTENERS:
            listeners.append(text)
        else:
            misses = near_misses(name, (*LISTENERS, *_MODELS, "none"))
            raise ConfigError(f"--score '{text}' was asked for.{misses}")
    check_listeners(tuple(listeners))
    return tuple(listeners), models


def _speakers(model: str | None) -> list[PairScore]:
    from speechadapt.models.pair_judges import SpeakerScore
    from speechadapt.models.speaker import load_speaker_model

    return [SpeakerScore(load_speaker_model(model))]


def _words(pairs: Sequence[Pair], judge: str) -> _Heard:
    """Return the words' scores."""
    from speechadapt.core.errors import ConfigError
    from speechadapt.metrics.report import markdown_table, to_json
    from speechadapt.models.build import load
    from speechadapt.models.pair_judges import judge_words
    from speechadapt.models.recogniser import Recogniser

    loaded: object = load(judge)
    if not isinstance(loaded, Recogniser):
        raise ConfigError(f"--score words={judge} names a restorer; a recogniser is needed.")
    words = judge_words(pairs, loaded)
    found: dict[str, Any] = {
        "judge": judge,
        "references": {"transcribed": words.transcribed, "heard": words.heard},
        "sets": [to_json(side) for side in words.sides],
    }
    said = (
        f"Words as {judge} hears them, against {words.transcribed} transcripts and "
        f"{words.heard} times what it hears in the clean recording."
    )
    return _Heard({"words": found}, f"\n\n{markdown_table(words.sides)}\n{said}")

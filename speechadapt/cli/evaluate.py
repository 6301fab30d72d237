"""`speechadapt evaluate`: scores of restored recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

HELP = "Score restored recordings against clean ones."

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
            help="Scores by models of listeners: pesq, stoi, dnsmos, none; may be given again. By "
            "default all three (extra 'metrics').",
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

    Log-spectral distance, SI-SDR, PESQ, STOI and ESTOI, DNSMOS, bandwidth, level, clipping and
    length drift: means with 95 % intervals. A score that a file does not have is missing, never 0.
    """
    from speechadapt.core.files import write_lines
    from speechadapt.metrics.quality_pictures import draw
    from speechadapt.metrics.quality_report import (
        find_pairs,
        item_rows,
        markdown_table,
        score_pair,
        summary,
    )

    listeners = _listeners(score)
    items = [score_pair(pair, listeners) for pair in find_pairs(reference, degraded, before)]
    if per_item is not None:
        write_lines(per_item, item_rows(items))
    if pictures is not None:
        draw(items, pictures)
    found = summary(items)
    print(json.dumps(found, ensure_ascii=False, indent=2) if as_json else markdown_table(found))


def _listeners(given: list[str] | None) -> tuple[str, ...]:
    from speechadapt.core.errors import ConfigError, near_misses
    from speechadapt.metrics.quality_listener import LISTENERS, check_listeners

    if given == ["none"]:
        return ()
    for name in given or ():
        if name not in LISTENERS:
            raise ConfigError(
                f"--score '{name}' was asked for.{near_misses(name, (*LISTENERS, 'none'))}"
            )
    names = tuple(given or LISTENERS)
    check_listeners(names)
    return names

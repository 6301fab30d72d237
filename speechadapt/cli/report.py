"""Write a job's page: totals, histograms, the worst files first, differences and audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HELP = "Write one HTML page about a job: figures, worst files, differences, audio."

_MEGABYTE = 1_000_000


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="The job's output folder, finished or not.")
    ],
    page: Annotated[
        Path | None,
        typer.Option("--page", help="The file (default: OUT/report.html).", show_default=False),
    ] = None,
    embed_mb: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Most megabytes of audio to put into the page, worst files first; the rest is "
            "linked relative to the page.",
        ),
    ] = 0.0,
) -> None:
    """Write one self-contained HTML page about a job; it needs no network and no server."""
    from speechadapt.report.page import write_page

    written = write_page(folder, page, int(embed_mb * _MEGABYTE))
    print(f"{written}: {written.stat().st_size / _MEGABYTE:.1f} MB")

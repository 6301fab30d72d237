"""Look at a job folder and after it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

HELP = "Look after a job: status, verify, retry, merge."

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)

Folder = Annotated[str, typer.Argument(help="The job's output folder, its URL, or --job-folder.")]


@app.command("status")
def status(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count items by status and reason; exit code 3 where some failed."""
    import json

    from speechadapt.jobs.manage import count

    totals = count(folder)
    if as_json:
        print(json.dumps(totals.to_json()))
    else:
        done = totals.items - totals.pending
        print(f"{done} of {totals.items} items done, {totals.audio_s / 3600:.2f} h of audio")
        for kind in ("statuses", "reasons", "flags"):
            for name, number in totals.to_json()[kind].items():
                print(f"  {number} {name}")
    raise typer.Exit(3 if totals.failed else 0)


@app.command("verify")
def verify(folder: Folder) -> None:
    """Read all outputs again and compare them with the ledger; exit code 3 on any difference."""
    from speechadapt.jobs.manage import verify as find

    findings = find(folder)
    for finding in findings:
        print(f"{finding.id}: {finding.problem}")
    print(f"{len(findings)} problems" if findings else "all outputs are there and as journalled")
    raise typer.Exit(3 if findings else 0)


@app.command("retry")
def retry(
    folder: Folder,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    offline: Annotated[bool, typer.Option(help="Never reach for the network.")] = False,
) -> None:
    """Try failed and partial items again, with the options the job was begun with."""
    from speechadapt.jobs.execute import retry_job

    raise typer.Exit(retry_job(folder, device=device, workers=workers, offline=offline))


@app.command("merge")
def merge(
    folder: Folder,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out items that are not done yet.")
    ] = False,
) -> None:
    """Join all shards into one file of rows and one report."""
    from speechadapt.jobs.manage import merge as join
    from speechadapt.jobs.table import print_report

    report = join(folder, allow_missing)
    print_report(report, sys.stdout)
    raise typer.Exit(3 if report.totals.failed or report.totals.pending else 0)

"""`speechadapt shards`: jobs of millions of recordings, shard by shard, by many drivers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speechadapt.jobs.job_options import JobOptions

HELP = "Do very large corpora shard by shard, outputs in tars: plan, run, status, verify, merge."

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)

_Plan = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan's folder.")]
_Output = Annotated[Path, typer.Option("-o", "--output", help="The folder of the shards.")]


@app.command("plan")
def plan(
    source: Annotated[
        Path,
        typer.Argument(
            help="JSON lines with audio_filepath and, where it is known, duration, or cuts of "
            "lhotse; or a folder of tars: WebDataset, Shar, or NeMo's."
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="PLAN", help="Receives the plan.")],
    items: Annotated[int, typer.Option(min=1, help="Most rows of a shard.")] = 4000,
    hours: Annotated[float, typer.Option(min=0.001, help="Hours that fill a shard.")] = 10.0,
) -> None:
    """Cut a manifest into shards (it is read once, as a stream), or take each tar as a shard."""
    from speechadapt.data.packed import packed_tars
    from speechadapt.jobs.shard_plan import ShardLimits, plan_shards, plan_tars

    if source.is_dir():
        made = plan_tars(packed_tars(source), folder)
    else:
        made = plan_shards(source, folder, ShardLimits(items, hours * 3600))
    print(f"{made.items} rows, {made.audio_s / 3600:.2f} h in {len(made.shards)} shards")


@app.command("unpack")
def unpack(
    source: Annotated[
        Path, typer.Argument(help="A Shar folder of lhotse, or a tarred corpus of NeMo.")
    ],
    folder: Annotated[Path, typer.Argument(help="Receives audio/ and manifest.jsonl.")],
) -> None:
    """Lay out recordings that lie in tars, with a manifest that every verb takes."""
    from speechadapt.core.errors import DataError
    from speechadapt.data.manifest import read_manifest
    from speechadapt.data.packed import is_packed
    from speechadapt.data.packed import unpack as lay_out

    if not is_packed(source):
        raise DataError(
            f"'{source}' is no packed corpus: a Shar folder holds cuts.NNNNNN.jsonl.gz and "
            "recording.NNNNNN.tar, NeMo's tarred_audio_manifest.json and audio_N.tar."
        )
    manifest = lay_out(source, folder)
    print(f"{len(read_manifest(manifest))} rows in {manifest}")


@app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    job: Annotated[str, typer.Argument(metavar="JOB", help="transcribe or restore.")],
    folder: _Plan,
    output: _Output,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OPTIONS OF JOB]", help="Such as --model.", show_default=False),
    ] = None,
) -> None:
    """Do all shards that nobody is at."""
    from speechadapt.jobs.shard_plan import read_shard_plan
    from speechadapt.jobs.shard_run import run_shards

    options = _options(job, words or [])
    raise typer.Exit(run_shards(read_shard_plan(folder), output, options))


@app.command("status")
def status(folder: _Plan, output: _Output) -> None:
    """Count shards and items by status; exit code 3 where some failed."""
    from speechadapt.jobs.shard_plan import read_shard_plan
    from speechadapt.jobs.shard_run import sum_shards

    sums = sum_shards(read_shard_plan(folder), output)
    print(f"{sums.done} of {sums.shards} shards done, {sums.totals.audio_s / 3600:.2f} h of audio")
    for kind in ("statuses", "reasons", "flags"):
        for name, number in sums.totals.to_json()[kind].items():
            print(f"  {number} {name}")
    raise typer.Exit(3 if sums.totals.failed else 0)


@app.command("verify")
def verify(folder: _Plan, output: _Output) -> None:
    """Read all shards again and compare them with what was noted; exit code 3 on a difference."""
    from speechadapt.jobs.shard_plan import read_shard_plan
    from speechadapt.jobs.shard_run import verify_shards

    problems = 0
    for problem in verify_shards(read_shard_plan(folder), output):
        print(problem)
        problems += 1
    print(f"{problems} problems" if problems else "all shards are there and as noted")
    raise typer.Exit(3 if problems else 0)


@app.command("merge")
def merge(folder: _Plan, output: _Output) -> None:
    """Write summary.json and failed.jsonl of all shards that are done."""
    import json

    from speechadapt.jobs.shard_plan import read_shard_plan
    from speechadapt.jobs.shard_run import join_shards

    sums = join_shards(read_shard_plan(folder), output)
    print(json.dumps(sums.to_json(), indent=2))
    raise typer.Exit(3 if sums.totals.failed or sums.done < sums.shards else 0)


def _options(job: str, words: list[str]) -> JobOptions:
    """Read a job's options from the words of its command line."""
    from speechadapt.cli.flags import command_for
    from speechadapt.jobs.kind import kind_named

    found: list[JobOptions] = []

    def keep(options: JobOptions) -> int:
        found.append(options)
        return 0

    reader = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    reader.command()(command_for(kind_named(job).options, keep, f"Options of {job}."))
    # The plan names the inputs; the command itself asks for one.
    reader(args=["plan", *words], prog_name=f"shards run {job}", standalone_mode=False)
    if not found:
        raise typer.Exit()  # it asked for help
    return found[0]

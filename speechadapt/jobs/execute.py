"""Run a job of any kind: prepare, run, report."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import fsum
from pathlib import Path
from typing import Any

from speechadapt.core.errors import ConfigError, JobError
from speechadapt.core.storage import is_url
from speechadapt.engines.base import Engine, Worker
from speechadapt.engines.process import ProcessEngine
from speechadapt.engines.ray import RayEngine
from speechadapt.engines.serial import SerialEngine
from speechadapt.jobs.folder import JobFolder, find_folder, folder_of
from speechadapt.jobs.interrupts import Interrupts
from speechadapt.jobs.job_options import JobOptions, parse_shard
from speechadapt.jobs.job_worker import WorkerSetup, start_worker
from speechadapt.jobs.ledger import Entry, Ledger
from speechadapt.jobs.place import Claim
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.prepare import Job, prepare_job, say, worker_threads
from speechadapt.jobs.progress import Tally, make_progress
from speechadapt.jobs.report import Report, finish
from speechadapt.jobs.run import Policy, Run, RunStats, assign
from speechadapt.jobs.speed import describe_run, measure

EXIT_OK, EXIT_FAILED_ITEMS, EXIT_LIMIT, EXIT_INTERRUPTED = 0, 3, 4, 130


def run_job(options: JobOptions, rescan: bool = True) -> int:
    """Run a job, print its report, and return the exit code.

    Args:
        options: What was asked for.
        rescan: Whether to look at the inputs again; otherwise the plan's items are taken.

    Returns:
        0 all well; 3 some items failed; 4 too many failed; 130 or 143 interrupted and resumable.

    Raises:
        FingerprintError: The output folder holds a job with other options.
        SpeechadaptError: The inputs, the model or the job folder cannot be used.
    """
    if not options.output:
        raise ConfigError("-o names the folder for the outputs; none was given.")
    shard = parse_shard(options.shard, dict(os.environ))
    if options.overwrite and shard[1] > 1:
        raise ConfigError(
            "--overwrite would wipe the work of the other shards; use it without --shard."
        )
    folder = folder_of(options, f"{shard[0] + 1}-of-{shard[1]}")
    with Interrupts(say) as interrupts:
        try:
            return _locked(options, folder, shard, rescan, interrupts)
        except KeyboardInterrupt:
            return interrupts.exit_code or EXIT_INTERRUPTED


def retry_job(output: Path | str, **changes: Any) -> int:
    """Try the failed and partial items of a job again, with the options it was last run with.

    Args:
        output: The job's output folder, its URL, or its `--job-folder`.
        changes: Options that may differ between runs of one job.

    Returns:
        The exit code of `run_job`.

    Raises:
        JobError: There is no such job.
    """
    folder = find_folder(output)
    folder.check_exists()
    options = folder.read_request()
    split = is_url(options.output) and not is_url(str(output))
    again: dict[str, Any] = {"retry_failed": True, "overwrite": False, "dry_run": False}
    where = {"shard": None, "job_folder" if split else "output": str(output)}
    return run_job(replace(options, **(again | where | changes)), rescan=False)


def print_plan(job: Job) -> None:
    """Print what would be done: items, hours, batches, where outputs go."""
    items, batches = job.mine(), job.plan.batches
    hours = fsum(item.audio_s for item in items) / 3600
    skipped = sum(bool(item.skip) for item in items)
    long = sum(batch.long for batch in batches)
    print(
        f"{len(items)} items, {hours:.2f} h of audio, {skipped} left out; {len(batches)} batches, "
        f"{long} of them one long recording each; output: {job.folder.place.shown}"
    )
    for batch in batches:
        first, *more = (job.plan.items[place] for place in batch.items)
        longest = max(item.audio_s for item in (first, *more))
        others = f" and {len(more)} more" if more else ""
        print(f"  batch {batch.index}: {first.id}{others}, up to {longest:.2f} s")


def _locked(
    options: JobOptions,
    folder: JobFolder,
    shard: tuple[int, int],
    rescan: bool,
    interrupts: Interrupts,
) -> int:
    lease: Claim | None = None
    with contextlib.ExitStack() as locks:
        if not options.dry_run:
            name = f"{shard[0] + 1}-of-{shard[1]}"
            locks.enter_context(folder.lock("driver", shared=shard[1] > 1))
            locks.enter_context(folder.lock(f"driver-{name}"))
            lease = locks.enter_context(folder.place.claim(f"driver-{name}"))
            folder.wait_for_orphans(None if shard[1] == 1 else name)
            folder.place.pull()
        job = prepare_job(options, folder, shard, rescan)
        if lease is None:
            print_plan(job)
            return EXIT_OK
        stats, report = _run(job, interrupts, lease)
    return _exit_code(job, stats, report, interrupts, lease)


def _run(job: Job, interrupts: Interrupts, lease: Claim) -> tuple[RunStats, Report]:
    options, folder = job.options, job.folder
    ledger = Ledger(folder.journal)
    mine = job.mine()
    again = _failed_before(mine, ledger) if options.retry_failed else frozenset()
    done = _done(job, mine, ledger) - again
    todo = frozenset(item.id for item in mine) - done
    staging = folder.state / "staging"
    for leftover in staging.glob(f"{job.shard_name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    limit = 0 if options.on_error == "stop" else options.failure_limit(len(mine))
    tally = Tally(
        items=len(mine),
        audio_s=fsum(item.audio_s for item in mine),
        items_done=len(done),
        audio_done_s=fsum(item.audio_s for item in mine if item.id in done),
        failed=len(_failed_before(mine, ledger) & done),
    )
    progress = make_progress(options.json_progress)
    journal = folder.open_journal(f"{job.shard_name}-driver")
    engine, factory = _engine(job)
    policy = Policy(options.timeout, limit, lambda: interrupts.caught is not None or lease.lost)
    run = Run(engine, factory, journal, policy, progress, tally)
    try:
        run.skip(item for item in mine if item.skip and item.id in todo)
        run.execute(assign(job.plan, ledger.entries, todo, again, job.shard))
    finally:
        progress.close(tally)
        journal.close()
    environment = describe_run(options)
    speed = measure(run.stats.results, options.workers, environment)
    with folder.lock("report", wait_s=60.0):
        report = finish(folder, job.plan, options.normaliser, speed, interrupts.caught is not None)
    return run.stats, report


def _engine(job: Job) -> tuple[Engine, Callable[[int], Worker]]:
    options = job.options
    setup = WorkerSetup(
        options, job.plan.limits, job.shard_name, worker_threads(options), job.folder.place.run
    )
    if options.engine_name == "process":
        return ProcessEngine(options.workers), partial(start_worker, setup)
    if options.engine_name == "ray":
        asked = options.device in ("auto", "cuda")
        engine = RayEngine(options.workers, options.address, accelerators=asked)
        return engine, partial(start_worker, setup)
    model, kind = job.model, job.kind
    if model is None:
        raise JobError("the serial engine has no model.")
    return SerialEngine(), lambda number: kind.worker(setup, model, number, locked=False)


def _done(job: Job, items: list[PlanItem], ledger: Ledger) -> frozenset[str]:
    """Return the ids of items with a journal line for their present content and all outputs."""
    outputs: dict[str, tuple[str, ...]] = {}
    for item in items:
        entry: Entry | None = ledger.entries.get(item.id)
        if entry is not None and entry.key == item.key:
            whole = entry.status not in ("failed", "skipped")
            outputs[item.id] = job.kind.outputs(job.options, item) if whole else ()
    missing = job.folder.place.missing(name for names in outputs.values() for name in names)
    return frozenset(name for name, wanted in outputs.items() if missing.isdisjoint(wanted))


def _failed_before(items: list[PlanItem], ledger: Ledger) -> frozenset[str]:
    failed = ("failed", "partial")
    entries = ((item, ledger.entries.get(item.id)) for item in items)
    return frozenset(
        item.id for item, entry in entries if entry is not None and entry.status in failed
    )


def _exit_code(
    job: Job, stats: RunStats, report: Report, interrupts: Interrupts, lease: Claim
) -> int:
    _show(report, job.options)
    if lease.lost:
        raise JobError(
            f"another run took over '{job.folder.place.shown}' while this one was not heard of; it "
            "goes on with what is left."
        )
    if interrupts.exit_code is not None:
        say("interrupted; the same command goes on where it stopped.")
        return interrupts.exit_code
    if stats.limit_hit:
        say(f"stopped after {stats.failed} failed items; the same command goes on.")
        return EXIT_LIMIT
    return EXIT_FAILED_ITEMS if report.totals.failed else EXIT_OK


def _show(report: Report, options: JobOptions) -> None:
    if options.json_progress:
        import json

        print(json.dumps({"event": "summary", **report.to_json()}), flush=True)
        return
    from speechadapt.jobs.table import print_report

    print_report(report, sys.stdout)

"""Make a job ready to run: scan while the model loads, check the fingerprint, settle the plan."""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from speechadapt.core.files import atomic_write_json
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.kind import Kind, kind_named
from speechadapt.jobs.ledger import Ledger
from speechadapt.jobs.measure import FileFacts, Selection, measure_files, planned_item, settle
from speechadapt.jobs.plan import (
    Limits,
    Plan,
    PlanItem,
    extend_plan,
    make_plan,
    read_plan,
    write_plan,
)
from speechadapt.jobs.scan import scan


@dataclass(frozen=True)
class Job:
    """A job that is ready to run.

    Args:
        options: What was asked for.
        folder: Where its state lies.
        plan: Its plan.
        model: The model; None where workers load their own.
        shard: This part counted from 0, and the number of parts.
    """

    options: JobOptions
    folder: JobFolder
    plan: Plan
    model: Any
    shard: tuple[int, int]

    @property
    def kind(self) -> Kind:
        """What is done to the items."""
        return kind_named(self.options.job)

    @property
    def shard_name(self) -> str:
        """The part as journals and locks name it (`1-of-4`)."""
        return f"{self.shard[0] + 1}-of-{self.shard[1]}"

    def mine(self) -> list[PlanItem]:
        """Return the items that this part answers for."""
        number, count = self.shard
        places = [
            place
            for batch in self.plan.batches
            if batch.index % count == number
            for place in batch.items
        ]
        skipped = [place for place, item in enumerate(self.plan.items) if item.skip]
        places += [place for place in skipped if place % count == number]
        return [self.plan.items[place] for place in sorted(places)]


def prepare_job(
    options: JobOptions, folder: JobFolder, shard: tuple[int, int], rescan: bool = True
) -> Job:
    """Find the items while the model loads, check the fingerprint, read or write the plan.

    Args:
        options: What was asked for.
        folder: The job's folder; with `options.dry_run` it is not written to.
        shard: This part counted from 0, and the number of parts.
        rescan: Whether to look at the inputs again; otherwise the plan's items are taken, and
            looked up again where they failed.

    Raises:
        FingerprintError: The folder holds a job with other options.
    """
    find = _scan if rescan else partial(_look_again, folder)
    kind = kind_named(options.job)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="scan") as executor:
        finding = executor.submit(find, options)
        model = kind.load(_for_driver(options), worker_threads(options))
        items, facts = finding.result()
    limits = kind.limits(options, model)
    selection = Selection(options.min_duration_s, options.max_duration_s, limits.window_s)
    planned = [settle(item, known, selection) for item, known in zip(items, facts, strict=True)]
    if options.dry_run:
        return Job(options, folder, make_plan(planned, limits), model, shard)
    with folder.lock("plan", wait_s=600.0):
        if options.overwrite:
            clear(folder)
        folder.claim(identity_of(options, model))
        atomic_write_json(folder.request, asdict(options))
        plan = _settle_plan(folder, planned, limits)
        folder.place.push()
    serial = options.engine_name == "serial"
    return Job(options, folder, plan, model if serial else None, shard)


def identity_of(options: JobOptions, model: Any) -> dict[str, Any]:
    """Return everything that changes a job's outputs, JSON types only.

    Args:
        options: What was asked for.
        model: What the kind of job loaded; says its own `fingerprint()`.
    """
    from importlib.metadata import version

    identity = {
        "job": options.job,
        "versions": {name: version(name) for name in kind_named(options.job).packages},
        "model": model.fingerprint(),
        "options": options.identity(),
    }
    # As it will be read back, so that a tuple and a list do not differ.
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def worker_threads(options: JobOptions) -> int | None:
    """Return the CPU threads of one worker: an equal part of all."""
    if options.threads is None:
        return None if options.workers == 1 else max(1, (os.cpu_count() or 1) // options.workers)
    return max(1, options.threads // options.workers)


def clear(folder: JobFolder) -> None:
    """Forget a job's state; its fingerprint goes last, so that half a wipe is never resumed."""
    folder.place.forget()
    for path in (folder.transcripts, folder.restored):
        path.unlink(missing_ok=True)
    for path in (folder.journal, folder.plan):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.failed, folder.summary, folder.job):
        path.unlink(missing_ok=True)


def _scan(options: JobOptions) -> tuple[list[PlanItem], list[FileFacts]]:
    found = scan(options.inputs, options.output, include=options.include, exclude=options.exclude)
    for problem in found.problems:
        say(str(problem))
    items = [planned_item(item) for item in found.items]
    return items, measure_files(items)


def _look_again(folder: JobFolder, options: JobOptions) -> tuple[list[PlanItem], list[FileFacts]]:
    """Take the plan's failed items and read their files' headers again."""
    plan, _ = read_plan(folder.plan)
    entries = Ledger(folder.journal).entries
    failed = {name for name, entry in entries.items() if entry.status in ("failed", "partial")}
    items = [item for item in (plan.items if plan else ()) if item.id in failed]
    return items, measure_files(items)


def _for_driver(options: JobOptions) -> JobOptions:
    """Leave the accelerator to the workers where they load models of their own."""
    return options if options.engine_name == "serial" else replace(options, device="cpu")


def _settle_plan(folder: JobFolder, items: list[PlanItem], limits: Limits) -> Plan:
    plan, generations = read_plan(folder.plan)
    if plan is None:
        plan, fresh = make_plan(items, limits), items
    else:
        fresh = plan.changed(items)
        if plan.limits != limits:
            say(f"the plan's batches hold: {plan.limits}.")
        plan = extend_plan(plan, fresh)
    if fresh or generations == 0:
        write_plan(folder.plan, plan, generations, fresh)
    return plan


def say(text: str) -> None:
    """Print a line for the user beside the outputs, on standard error."""
    print(f"speechadapt: {text}", file=sys.stderr, flush=True)

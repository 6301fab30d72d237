"""Do a planned manifest shard by shard: each shard an ordinary job, its outputs one tar.

Any number of drivers may work in one output folder. A driver takes the first shard that is neither
done nor leased, does its rows as a job (so one that is killed goes on where it stopped, item by
item), packs the outputs, and says that the shard is done. What is done is never looked at again.

OUT/
    shards/NNNNNN.tar           outputs, one sample an item: its row and its files
    shards/NNNNNN.tar.done      counts, sums and checksum (see `data.shard_tar`)
    shards/NNNNNN.failed.jsonl  items without whole outputs; missing where there are none
    open/NNNNNN/                the job of a shard under way
    leases/                     who is at which shard
    summary.json, failed.jsonl  sums over all shards, once `join_shards` was called
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from speechadapt.core.errors import ConfigError, DataError, FingerprintError, JobError
from speechadapt.core.files import atomic_write, atomic_write_json, read_json, write_lines
from speechadapt.data.shard_tar import DONE, Sample, check_shard, done_path, read_facts, write_shard
from speechadapt.jobs.execute import EXIT_FAILED_ITEMS, EXIT_OK, run_job
from speechadapt.jobs.folder import JobFolder, differences
from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.lease import Lease
from speechadapt.jobs.ledger import Ledger
from speechadapt.jobs.manage import count, open_job
from speechadapt.jobs.report import Totals, current_records
from speechadapt.jobs.shard_plan import Shard, ShardPlan, check_tar, shard_rows
from speechadapt.jobs.shard_unpack import unpack_shard
from speechadapt.metrics.bootstrap import bootstrap_ratio
from speechadapt.metrics.wer import EditCounts

_PACKED = (EXIT_OK, EXIT_FAILED_ITEMS)
RunJob = Callable[[JobOptions], int]


@dataclass(frozen=True)
class ShardSums:
    """What the shards that are done come to.

    Args:
        shards: How many there are.
        done: How many are done.
        totals: Sums over the items of those.
        words: Word edits; None where nothing was scored.
        characters: Character edits; None where nothing was scored.
        low: Lower end of the word error rate's interval, drawn over shards.
        high: Its upper end.
    """

    shards: int
    done: int
    totals: Totals
    words: EditCounts | None
    characters: EditCounts | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON types, rates as fractions."""
        score = None
        if self.words is not None and self.characters is not None:
            interval = {"low": self.low, "high": self.high, "interval": "95 % over shards"}
            score = {
                "wer": {"rate": self.words.rate, **interval, **asdict(self.words)},
                "cer": {"rate": self.characters.rate, **asdict(self.characters)},
            }
        done = {"shards": self.shards, "done": self.done, "complete": self.done == self.shards}
        return {**done, **self.totals.to_json(), "score": score}


def run_shards(plan: ShardPlan, output: Path, options: JobOptions, run: RunJob = run_job) -> int:
    """Do shards until none is left that nobody else is at.

    Args:
        plan: The plan.
        output: Receives the shards; several drivers may share it.
        options: What is asked of each shard's job; its inputs and output are set here.
        run: Runs a job.

    Returns:
        0 where every shard done here is whole, 3 where items failed; the code of a job that was
        interrupted or hit its failure limit.

    Raises:
        ConfigError: The output is behind a URL.
        FingerprintError: The folder was begun with other options or another model.
        JobError: The manifest was changed.
    """
    _check_options(output, options)
    failed = False
    for shard in plan.shards:
        if done_path(shard_path(output, shard)).is_file():
            continue
        with contextlib.ExitStack() as leases:
            work = f"shard {shard.name} of '{output}'"
            try:
                lease = leases.enter_context(Lease(output / "leases" / shard.name, work))
            except JobError:
                continue  # another driver is at it
            if done_path(shard_path(output, shard)).is_file():
                continue
            code = run(_job_of(plan, shard, output, options))
            if code not in _PACKED:
                return code
            failed = failed or code == EXIT_FAILED_ITEMS
            _close(shard, output, lease)
    return EXIT_FAILED_ITEMS if failed else EXIT_OK


def shard_path(output: Path, shard: Shard) -> Path:
    """Return a shard's tar."""
    return output / "shards" / f"{shard.name}.tar"


def finished_shards(output: Path) -> frozenset[str]:
    """Return the names of the shards that are done."""
    folder = output / "shards"
    ending = f".tar{DONE}"
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(ending)]
    return frozenset(name.removesuffix(ending) for name in names)


def sum_shards(plan: ShardPlan, output: Path) -> ShardSums:
    """Add up what the shards' `.done` files say; nothing else is read.

    Args:
        plan: The plan.
        output: The shards' folder.

    Raises:
        DataError: A `.done` file is not what this package writes.
    """
    totals = Totals(items=plan.items)
    words: list[EditCounts] = []
    characters: list[EditCounts] = []
    done = 0
    known = finished_shards(output)
    for shard in plan.shards:
        if shard.name not in known:
            totals.pending += shard.items
            continue
        done += 1
        extra = read_facts(shard_path(output, shard)).extra
        _add(totals, extra["totals"])
        if extra["score"] is not None:
            words.append(EditCounts(**extra["score"]["words"]))
            characters.append(EditCounts(**extra["score"]["characters"]))
    if not words:
        return ShardSums(len(plan.shards), done, totals, None, None, None, None)
    interval = bootstrap_ratio([one.edits for one in words], [one.reference for one in words])
    return ShardSums(
        shards=len(plan.shards),
        done=done,
        totals=totals,
        words=sum(words, EditCounts()),
        characters=sum(characters, EditCounts()),
        low=round(interval.low, 5),
        high=round(interval.high, 5),
    )


def join_shards(plan: ShardPlan, output: Path) -> ShardSums:
    """Write `summary.json` and `failed.jsonl` of all shards that are done.

    Args:
        plan: The plan.
        output: The shards' folder.

    Raises:
        DataError: A `.done` file is not what this package writes.
    """
    sums = sum_shards(plan, output)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            for shard in plan.shards:
                path = _failed_path(output, shard)
                if path.is_file():
                    handle.write(path.read_bytes())

    atomic_write(output / "failed.jsonl", write)
    atomic_write_json(output / "summary.json", sums.to_json())
    return sums


def verify_shards(plan: ShardPlan, output: Path) -> Iterator[str]:
    """Read every shard again; yield what is wrong, shard by shard.

    Args:
        plan: The plan.
        output: The shards' folder.
    """
    known = finished_shards(output)
    for shard in plan.shards:
        if shard.name not in known:
            yield f"shard {shard.name} is not done"
            continue
        try:
            facts = check_shard(shard_path(output, shard))
        except DataError as error:
            yield str(error)
            continue
        if facts.samples != shard.items:
            yield f"shard {shard.name} holds {facts.samples} samples of {shard.items} rows"


def _check_options(output: Path, options: JobOptions) -> None:
    """Refuse other options at once; another model shows when its first shard is closed."""
    if re.match(r"[a-z0-9+.-]+:/", str(output)):  # two slashes, as a path
        raise ConfigError(f"shards are written to a file system, not to '{output}'.")
    path = JobFolder(output).job
    if not path.is_file():
        return
    known = read_json(path)["identity"]["options"]
    # As it was written, so that a tuple and a list do not differ.
    lines = differences(known, json.loads(json.dumps(options.identity())))
    if lines:
        raise FingerprintError(
            f"the shards in '{output}' were begun with other options:\n  " + "\n  ".join(lines)
        )


def _job_of(plan: ShardPlan, shard: Shard, output: Path, options: JobOptions) -> JobOptions:
    """Write the rows of a shard, unpacked where it is a tar; return the options of its job."""
    folder = output / "open" / shard.name
    manifest = folder / "rows.jsonl"
    if shard.tar:
        unpacked = folder / "in"
        manifest = unpacked / "rows.jsonl"
        # relative, so that what is written does not hang on where OUT lies
        rows = [
            row | {"audio_filepath": os.path.relpath(row["audio_filepath"], unpacked.resolve())}
            for row in unpack_shard(check_tar(shard), unpacked)
        ]
    else:
        rows = shard_rows(plan, shard)
    write_lines(manifest, rows)
    return replace(options, inputs=(str(manifest),), output=str(folder / "out"), shard=None)


def _close(shard: Shard, output: Path, lease: Lease) -> None:
    """Pack a shard whose job is done, and forget the job."""
    opened = output / "open" / shard.name
    job = opened / "out"
    folder = JobFolder(job)
    identity = folder.read_identity()
    JobFolder(output).claim(identity)
    figures = folder.kind().figures(identity["options"]["normaliser"])
    _, plan = open_job(job)
    for record in current_records(plan, Ledger(folder.journal)):
        if record is not None:
            figures.add(record)
    score = figures.score()
    extra: dict[str, Any] = {"totals": count(job).to_json(), "score": None}
    if score is not None:
        sides = {"words": score.words, "characters": score.characters}
        extra["score"] = {name: asdict(counts) for name, counts in sides.items()}
    if lease.lost:
        raise JobError(f"another run took over shard {shard.name} of '{output}'.")
    failed = folder.failed.read_bytes() if folder.failed.is_file() else b""
    if failed:
        atomic_write(_failed_path(output, shard), lambda path: _write(path, failed))
    write_shard(shard_path(output, shard), _samples(job), extra)
    shutil.rmtree(opened)


def _samples(job: Path) -> Iterator[Sample]:
    """Yield a sample for each item of a job: its row, and its outputs under their suffixes."""
    folder, plan = open_job(job)
    taken: Counter[str] = Counter()
    records = current_records(plan, Ledger(folder.journal))
    for item, record in zip(plan.items, records, strict=True):
        if record is None:
            raise JobError(f"'{item.id}' in '{job}' is not done.")
        row = json.dumps({"id": item.id, **record.row}, ensure_ascii=False) + "\n"
        files = {"row.json": row.encode("utf-8", "surrogateescape")}
        for name in record.outputs:
            files[_suffix(name, item.stem)] = (job / name).read_bytes()
        yield Sample(_key(item.stem, taken), files)


def _suffix(name: str, stem: str) -> str:
    return (
        name.removeprefix(stem).lstrip(".") if name.startswith(stem) else PurePosixPath(name).name
    )


def _key(stem: str, taken: Counter[str]) -> str:
    """Return a key without a dot in its last part, made unique in its shard."""
    path = PurePosixPath(stem.lstrip("/"))
    key = str(path.with_name(path.name.replace(".", "_")))
    taken[key] += 1
    return key if taken[key] == 1 else f"{key}-{taken[key]}"


def _failed_path(output: Path, shard: Shard) -> Path:
    return output / "shards" / f"{shard.name}.failed.jsonl"


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _add(totals: Totals, row: dict[str, Any]) -> None:
    for name in ("statuses", "reasons", "flags"):
        getattr(totals, name).update(row[name])
    totals.pending += row["pending"]
    totals.audio_s += row["audio_s"]
    totals.decode_s += row["decode_s"]
    totals.model_s += row["model_s"]
    totals.watched += row["coverage"]["items"]
    totals.speech_s += row["coverage"]["speech_s"]
    totals.covered_s += row["coverage"]["covered_s"]

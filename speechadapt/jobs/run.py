"""Run a plan: hand batches to an engine, split what was lost, count, and stop when asked.

Workers write outputs and journal lines themselves; this side journals only what no worker could:
items that were left out by the plan and items whose worker died or ran out of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from speechadapt.engines.base import Engine, Outcome, Unit, WorkerFactory
from speechadapt.jobs.ledger import Entry, Journal, Record, Status
from speechadapt.jobs.plan import Plan, PlanItem
from speechadapt.jobs.progress import Progress, Tally
from speechadapt.jobs.rows import make_row

_FAILED = ("failed", "partial")


@dataclass(frozen=True)
class Assignment:
    """What one unit asks of a worker.

    Args:
        batch: The batch's number in the plan.
        items: All items of the batch, so that numbers do not depend on what was done before.
        todo: Ids of the items to write.
        long: One long recording.
        attempts: How often each item of `todo` was tried before, by id; 0 where it is not named.
        recheck: Whether an earlier worker may have journalled some of `todo` before it died.
    """

    batch: int
    items: tuple[PlanItem, ...]
    todo: frozenset[str]
    long: bool = False
    attempts: Mapping[str, int] = field(default_factory=dict)
    recheck: bool = False


@dataclass(frozen=True)
class ItemDone:
    """One item of a unit's result."""

    id: str
    status: Status
    audio_s: float


@dataclass(frozen=True)
class UnitResult:
    """What a worker returns for a unit.

    Args:
        items: What it journalled, item by item.
        worker: The worker's number.
        audio_s: Seconds of audio that went through the model.
        decode_s: Seconds of reading and decoding.
        model_s: Seconds of the model.
        write_s: Seconds of writing.
        first: Whether it is the worker's first unit with audio, which pays for warming up.
    """

    items: tuple[ItemDone, ...]
    worker: int = 0
    audio_s: float = 0.0
    decode_s: float = 0.0
    model_s: float = 0.0
    write_s: float = 0.0
    first: bool = False


@dataclass
class RunStats:
    """What one run did.

    Args:
        results: Results of its units.
        failed: Items that failed or are partial.
        limit_hit: Whether it stopped because too many failed.
    """

    results: list[UnitResult] = field(default_factory=list)
    failed: int = 0
    limit_hit: bool = False


@dataclass(frozen=True)
class Policy:
    """When a run gives up on items and on itself.

    Args:
        timeout_s: Seconds an item may take; None for any time.
        limit: Most failed items put up with; None for any number.
        interrupted: Says whether the user asked to stop.
    """

    timeout_s: float | None
    limit: int | None
    interrupted: Callable[[], bool]


def assign(
    plan: Plan,
    entries: Mapping[str, Entry],
    todo: frozenset[str],
    again: frozenset[str],
    shard: tuple[int, int],
) -> list[Assignment]:
    """List the batches of a shard that hold anything to do.

    Args:
        plan: The plan.
        entries: What the ledger knows, by id.
        todo: Ids of the items to do.
        again: Ids of those among them that failed before; they are decoded by themselves, without
            the rest of their batch.
        shard: The shard counted from 0, and the number of shards.
    """
    number, count = shard
    assignments = []
    for batch in plan.batches:
        items = tuple(plan.items[place] for place in batch.items)
        wanted = frozenset(item.id for item in items) & todo
        if batch.index % count != number or not wanted:
            continue
        if wanted <= again:
            items = tuple(item for item in items if item.id in wanted)
        tried = {name: entries[name].attempts for name in wanted if name in entries}
        assignments.append(Assignment(batch.index, items, wanted, batch.long, tried))
    return assignments


class Run:
    """One execution of assignments.

    Args:
        engine: Where the work is done.
        factory: Builds the workers.
        journal: Receives what no worker can record.
        policy: When to give up.
        progress: Shows the tally.
        tally: Where the job stands.
    """

    def __init__(
        self,
        engine: Engine,
        factory: WorkerFactory,
        journal: Journal,
        policy: Policy,
        progress: Progress,
        tally: Tally,
    ) -> None:
        self._engine, self._factory = engine, factory
        self._journal, self._policy = journal, policy
        self._progress, self._tally = progress, tally
        self._expected: dict[str, float] = {}
        self.stats = RunStats()

    def execute(self, assignments: Sequence[Assignment]) -> RunStats:
        """Do the assignments; a batch that was lost is done again item by item.

        Args:
            assignments: The work.

        Returns:
            What was done; it is less than everything where the run was asked to stop.
        """
        for assignment in assignments:
            self._expected |= {
                item.id: item.audio_s for item in assignment.items if item.id in assignment.todo
            }
        lost = self._pass(assignments)
        if lost and not self._stop():
            self._pass(list(_singles(lost)))
        return self.stats

    def skip(self, items: Iterable[PlanItem]) -> None:
        """Journal items that the plan leaves out."""
        records = [
            Record(
                id=item.id,
                key=item.key,
                status="skipped",
                message=item.skip,
                row=make_row(item, "skipped", duration=item.audio_s or None),
            )
            for item in items
        ]
        if records:
            self._journal.append(records)

    def _pass(self, assignments: Sequence[Assignment]) -> list[Outcome]:
        """Run units and return the outcomes that no worker could bring to an end."""
        timeout_s = self._policy.timeout_s
        units = [
            Unit(
                number,
                assignment,
                None if timeout_s is None else timeout_s * len(assignment.items),
            )
            for number, assignment in enumerate(assignments)
        ]
        lost: list[Outcome] = []
        for outcome in self._engine.map(self._factory, units, self._stop):
            if outcome.kind == "done":
                self._count(outcome.value)
            elif len(outcome.unit.payload.todo) == 1:
                self._give_up(outcome)
            else:
                lost.append(outcome)
            self._progress.show(self._tally)
        return lost

    def _stop(self) -> bool:
        limit = self._policy.limit
        if limit is not None and self.stats.failed > limit:
            self.stats.limit_hit = True
        return self.stats.limit_hit or self._policy.interrupted()

    def _count(self, result: UnitResult) -> None:
        self.stats.results.append(result)
        for item in result.items:
            expected = self._expected.pop(item.id, 0.0)
            self._tally.items_done += 1
            self._tally.audio_done_s += expected
            self._tally.run_audio_s += expected
            if item.status in _FAILED:
                self._tally.failed += 1
                self.stats.failed += 1

    def _give_up(self, outcome: Outcome) -> None:
        """Journal the one item of a unit as failed."""
        assignment: Assignment = outcome.unit.payload
        reason = "TIMEOUT" if outcome.kind == "timeout" else "MODEL"
        for item in assignment.items:
            if item.id not in assignment.todo:
                continue
            before = assignment.attempts.get(item.id, 0)
            record = Record(
                id=item.id,
                key=item.key,
                status="failed",
                reason=reason,
                message=outcome.message,
                attempts=before + outcome.unit.attempt,
                row=make_row(item, "failed", reason=reason, duration=item.audio_s or None),
            )
            self._journal.append([record])
            self._count(UnitResult((ItemDone(item.id, "failed", 0.0),)))


def _singles(outcomes: Iterable[Outcome]) -> Iterator[Assignment]:
    for outcome in outcomes:
        assignment: Assignment = outcome.unit.payload
        for item in assignment.items:
            if item.id in assignment.todo:
                todo = frozenset({item.id})
                yield replace(assignment, items=(item,), todo=todo, recheck=True)

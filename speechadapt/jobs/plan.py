"""The plan of a job: which items, in which order, in which batches. Written once, never changed.

Outputs depend on the plan alone, so the batches are part of it: clips are sorted by length and cut
into groups that pad little, recordings longer than the model's window stand alone. Items that turn
up later form a further generation with batches of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechadapt.core.errors import JobError
from speechadapt.core.files import read_lines, write_lines


@dataclass(frozen=True)
class PlanItem:
    """One recording, or a stretch of one, that a job has to do.

    Args:
        id: A name that is unique in the job.
        audio_filepath: The path as the job's rows give it.
        path: Where the audio is.
        stem: Outputs' path relative to the output folder, without a format's suffix.
        key: Size and time of change of the file, so that a changed file is done again.
        offset: Seconds from the start of the recording.
        duration: Seconds wanted from there; None up to the end.
        header_s: Seconds by the file's header; None where it could not be read.
        whole: A manifest row: never cut where the model can take it whole.
        long: Longer than the model's window: cut at pauses, block by block.
        skip: Why the item is left out; empty where it is not.
        text: The reference transcript.
        lang: Its language.
        speaker: Who speaks.
    """

    id: str
    audio_filepath: str
    path: str
    stem: str
    key: str = ""
    offset: float = 0.0
    duration: float | None = None
    header_s: float | None = None
    whole: bool = False
    long: bool = False
    skip: str = ""
    text: str | None = None
    lang: str | None = None
    speaker: str | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio to expect; 0 where nothing is known."""
        left = None if self.header_s is None else max(0.0, self.header_s - self.offset)
        if self.duration is None:
            return left or 0.0
        return self.duration if left is None else min(self.duration, left)


@dataclass(frozen=True)
class Batch:
    """Items that are done together.

    Args:
        index: Number in the plan.
        items: Places in `Plan.items`.
        long: One long recording, cut into segments when it is read.
    """

    index: int
    items: tuple[int, ...]
    long: bool = False


@dataclass(frozen=True)
class Limits:
    """What a batch may hold.

    Args:
        batch_size: Most items.
        batch_s: Most seconds with padding: items times the longest one.
        window_s: Seconds of audio the model takes at once; None for any length.
    """

    batch_size: int = 16
    batch_s: float = 120.0
    window_s: float | None = None


@dataclass(frozen=True)
class Plan:
    """Items in scan order and the batches that cover them.

    Args:
        items: Every item, skipped ones too.
        batches: Every item that is not skipped stands in exactly one.
        limits: What the batches were cut with.
    """

    items: tuple[PlanItem, ...]
    batches: tuple[Batch, ...]
    limits: Limits

    def changed(self, items: Iterable[PlanItem]) -> list[PlanItem]:
        """Return those of `items` that the plan does not have, or has with another content key."""
        known = {item.id: item.key for item in self.items}
        return [item for item in items if known.get(item.id) != item.key]


def make_plan(items: Sequence[PlanItem], limits: Limits) -> Plan:
    """Cut items into batches.

    Args:
        items: In scan order.
        limits: What a batch may hold.

    Returns:
        The plan; the longest batches come first, so that what does not fit memory shows at once
        and no long one is left for the end.
    """
    return extend_plan(Plan((), (), limits), items)


def extend_plan(plan: Plan, items: Sequence[PlanItem]) -> Plan:
    """Add items to a plan in batches of their own.

    An item the plan has already (its file changed) takes its old place with the new facts, leaves
    its old batch, and is batched anew.

    Args:
        plan: The plan so far.
        items: More items.

    Returns:
        A plan whose first items and batches are those of `plan`.
    """
    merged, fresh = _merge(plan, items)
    wanted = [place for place in fresh if not merged[place].skip]
    return _add_batches(plan, merged, fresh, _groups(merged, wanted, plan.limits))


def write_plan(folder: Path, plan: Plan, generation: int, items: Sequence[PlanItem]) -> None:
    """Write one generation: its limits, its items and its batches.

    Args:
        folder: The plan's folder.
        plan: The plan including the generation.
        generation: Its number, counted from 0.
        items: Its items.
    """
    ids = {item.id for item in items}
    groups = ([plan.items[place].id for place in batch.items] for batch in plan.batches)
    batches = [{"batch": group} for group in groups if group and group[0] in ids]
    head = {
        "generation": generation,
        "items": len(items),
        "batches": len(batches),
        "limits": asdict(plan.limits),
    }
    rows = [{"item": _lean(item)} for item in items]
    write_lines(folder / f"{generation:04d}.jsonl", [head, *rows, *batches])


def read_plan(folder: Path) -> tuple[Plan | None, int]:
    """Read all generations.

    Args:
        folder: The plan's folder; it may be missing.

    Returns:
        The plan, None where there is none, and the number of generations.

    Raises:
        JobError: A generation is not whole or not what `write_plan` writes.
    """
    plan: Plan | None = None
    paths = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    for path in paths:
        limits, items, groups = _read_generation(path)
        before = Plan((), (), limits) if plan is None else plan
        merged, fresh = _merge(before, items)
        places = {merged[place].id: place for place in fresh}
        batches = [tuple(places[identifier] for identifier in group) for group in groups]
        plan = _add_batches(before, merged, fresh, batches)
    return plan, len(paths)


def _merge(plan: Plan, items: Sequence[PlanItem]) -> tuple[list[PlanItem], list[int]]:
    """Put items at their places: those of the plan where it has them, else behind."""
    merged = list(plan.items)
    places = {item.id: place for place, item in enumerate(merged)}
    fresh: list[int] = []
    for item in items:
        place = places.setdefault(item.id, len(merged))
        if place == len(merged):
            merged.append(item)
        else:
            merged[place] = item
        fresh.append(place)
    return merged, fresh


def _add_batches(
    plan: Plan, merged: Sequence[PlanItem], moved: Sequence[int], groups: Sequence[tuple[int, ...]]
) -> Plan:
    """Take `moved` items out of their old batches and append the new ones."""
    gone = set(moved)
    kept = [
        Batch(batch.index, tuple(place for place in batch.items if place not in gone), batch.long)
        for batch in plan.batches
    ]
    added = [
        Batch(len(kept) + number, group, merged[group[0]].long)
        for number, group in enumerate(groups)
    ]
    return Plan(tuple(merged), (*kept, *added), plan.limits)


def _groups(items: Sequence[PlanItem], places: list[int], limits: Limits) -> list[tuple[int, ...]]:
    """Group places, longest first; ties stand in scan order."""
    groups: list[tuple[int, ...]] = [(place,) for place in places if items[place].long]
    groups.sort(key=lambda group: -items[group[0]].audio_s)
    clips = sorted(
        (place for place in places if not items[place].long),
        key=lambda place: (-items[place].audio_s, place),
    )
    group: list[int] = []
    for place in clips:
        longest = items[group[0]].audio_s if group else items[place].audio_s
        full = len(group) >= limits.batch_size or (len(group) + 1) * longest > limits.batch_s
        if group and full:
            groups.append(tuple(group))
            group = []
        group.append(place)
    return [*groups, tuple(group)] if group else groups


def _read_generation(path: Path) -> tuple[Limits, list[PlanItem], list[list[str]]]:
    try:
        rows = [row for _, row in read_lines(path)]
        head = rows[0]
        items = [PlanItem(**row["item"]) for row in rows[1:] if "item" in row]
        groups = [row["batch"] for row in rows[1:] if "batch" in row]
        limits = Limits(**head["limits"])
        whole = len(items) == head["items"] and len(groups) == head["batches"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise JobError(f"the plan '{path}' cannot be read: {error}.") from error
    if not whole:
        raise JobError(f"the plan '{path}' is not whole; --overwrite begins the job anew.")
    return limits, items, groups


def _lean(item: PlanItem) -> Mapping[str, Any]:
    defaults = PlanItem("", "", "", "")
    always = ("id", "audio_filepath", "path", "stem")
    return {
        name: value
        for name, value in asdict(item).items()
        if name in always or value != getattr(defaults, name)
    }

"""What a way to serve many tasks costs in use: the encoder's time with it over the bare one's.

Both work in turns on the same few recordings, a batch of each task; choosing adapters by sound is
part of its time. A way that leaves nothing beside the encoder costs nothing and is not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from bench_steps import take_turns
from multitask_scores import Items, Stage

from speechadapt.adapters.attach import active
from speechadapt.adapters.compose.route import RETRIEVER
from speechadapt.audio.margin import add_margin
from speechadapt.core.shapes import Clip
from speechadapt.training.tasks.multitask import MultitaskObjective

ROWS = 3  # recordings of each task
ROUNDS = 5

Batches = Sequence[tuple[str, list[Clip]]]


def cost_of_run(objective: MultitaskObjective, items: Items) -> dict[str, Any] | None:
    """Return the cost of what a run trained; None where nothing stands beside the encoder.

    Args:
        objective: The run, as it was at its end.
        items: Recordings by task.
    """
    if objective.handle is None:
        return None
    name = objective.handle.name

    def work(task: str, clips: list[Clip]) -> None:
        with active(objective.encoder, name), objective.acting([task] * len(clips)):
            objective.encoder.encode(clips)

    return _measured(objective, items, work)


def cost_of_way(stage: Stage, way: str, items: Items) -> dict[str, Any]:
    """Return the cost of a way that trains nothing.

    Args:
        stage: The single-task adapters.
        way: One of `FREE`.
        items: Recordings by task.
    """
    encoder = stage.encoder
    if way.startswith("oracle"):

        def told(task: str, clips: list[Clip]) -> None:
            with active(encoder, task):
                encoder.encode(clips)

        return _measured(stage.objective, items, told)
    with stage.composed(way) as (names, handle):

        def work(task: str, clips: list[Clip]) -> None:
            chooses = RETRIEVER in handle.notes
            with stage.chosen(handle, clips) if chooses else active(encoder, names):
                encoder.encode(clips)

        return _measured(stage.objective, items, work)


@torch.no_grad()
def _measured(
    objective: MultitaskObjective, items: Items, work: Callable[[str, list[Clip]], None]
) -> dict[str, Any]:
    rate, margin_s = objective.encoder.sample_rate, objective.margin_s
    batches = [
        (task, [torch.from_numpy(add_margin(one, rate, margin_s)) for one, _ in rows[:ROWS]])
        for task, rows in items.items()
    ]

    def bare() -> None:
        with active(objective.encoder, None):
            for _, clips in batches:
                objective.encoder.encode(clips)

    def whole() -> None:
        for task, clips in batches:
            work(task, clips)

    seconds = take_turns({"bare": bare, "whole": whole}, ROUNDS)
    ratios = [b / a for a, b in zip(seconds["bare"], seconds["whole"], strict=True)]
    ends = statistics.median(ratios), min(ratios), max(ratios)
    time, low, high = (round(one, 4) for one in ends)
    return {"time": time, "low": low, "high": high}

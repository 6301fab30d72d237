"""Scores of the arms of a comparison on test; of ways that train nothing on dev too.

A line holds the edits of every item, tasks in the suite's order and items by id, words and
characters apart; who says the items and how long they are stands once in the line of kind `items`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from grid_plan import Run
from multitask_plan import FREE, HEAD, runs_of
from safetensors.torch import load_file

from speechadapt.adapters.attach import active, remove, use
from speechadapt.adapters.compose.route import RETRIEVER, Retriever
from speechadapt.adapters.composed import compose, weights_noted
from speechadapt.adapters.handle import Handle, attachment, attachments
from speechadapt.adapters.retrieval import (
    Described,
    describe_all,
    layers_of,
    make_card,
    save_card,
)
from speechadapt.adapters.retrieval_index import Index, build_index, save_index
from speechadapt.adapters.routing import Names
from speechadapt.adapters.weighers import ROW_WEIGHTS
from speechadapt.audio.augment import Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.shapes import Clip
from speechadapt.data import own
from speechadapt.metrics.wer import CorpusScore
from speechadapt.training.adapt.report import DevSets
from speechadapt.training.tasks.multitask import MultitaskObjective, task_of

if TYPE_CHECKING:
    from multitask import Comparison

Items = dict[str, list[tuple[Signal, Any]]]
DESCRIBED = 2000  # training recordings of a task that its card is made from, at most
TEST = "test"


def test_items(comparison: Comparison) -> Items:
    """Return the test recordings by task, spelt as the dev recordings are."""
    recipe, rate = comparison.recipe(HEAD), 16000
    from speechadapt.training.adapt.text import Speller

    spell = Speller(recipe.normaliser, recipe.language)
    found: Items = {task: [] for task in comparison.plan.tasks}
    for row in own.own_rows(recipe.data.own_path, TEST):
        spelt = dataclasses.replace(row, text=spell(row))
        found[task_of(row)].append((own.read_own(row, rate)[0], spelt))
    return found


def sets_of(items: Mapping[str, Sequence[tuple[Signal, Any]]]) -> DevSets:
    """Return recordings as sets that can be scored."""
    return DevSets(items, "verbatim", None)


def counted(scored: Mapping[str, CorpusScore], tasks: Sequence[str]) -> dict[str, Any]:
    """Return the edits of every item, as JSON values.

    Args:
        scored: By task.
        tasks: In the order wanted; of one that was not scored nothing is said.
    """
    edits: dict[str, dict[str, list[int]]] = {"cer": {}, "wer": {}}
    for task in tasks:
        if task not in scored:
            continue
        items = sorted(scored[task].items, key=lambda one: one.pair.id)
        edits["cer"][task] = [one.characters.edits for one in items]
        edits["wer"][task] = [one.words.edits for one in items]
    return {"edits": edits}


def items_line(scored: Mapping[str, CorpusScore], tasks: Sequence[str]) -> dict[str, Any]:
    """Return what stands beside every item, as JSON values: units and speakers.

    Args:
        scored: Of all tasks.
        tasks: In the order wanted.
    """
    sorted_items = {task: sorted(scored[task].items, key=lambda one: one.pair.id) for task in tasks}
    return {
        "kind": "items",
        "units": {
            "cer": {t: [one.characters.reference for one in v] for t, v in sorted_items.items()},
            "wer": {t: [one.words.reference for one in v] for t, v in sorted_items.items()},
        },
        "speakers": {t: [one.pair.speaker for one in v] for t, v in sorted_items.items()},
    }


def restored(comparison: Comparison, run: Run) -> MultitaskObjective:
    """Return the task of a finished run as it was at its end."""
    objective = comparison.build(run)
    objective.load_state_dict(load_file(comparison.target(run) / "state.safetensors"))
    objective.eval()
    return objective


@torch.no_grad()
def score_run(comparison: Comparison, run: Run, items: Items) -> dict[str, Any]:
    """Return the line of a trained run's test score.

    Args:
        comparison: The comparison.
        run: A finished run.
        items: The test recordings.
    """
    objective = restored(comparison, run)
    sets = sets_of(items)
    objective.task_scores(sets, TEST)
    line = {"kind": "test", "arm": run.arm, "rate": run.rate, "seed": run.seed}
    return line | counted(sets.scored, comparison.plan.tasks)


class Stage:
    """The single-task adapters of one seed on one encoder, to be put together and scored.

    Args:
        comparison: The comparison, whose single-task adapters of that seed are finished.
        kind: Which adapters.
        seed: The seed.
    """

    def __init__(self, comparison: Comparison, kind: str, seed: int) -> None:
        self.comparison = comparison
        self.kind, self.seed, self.tasks = kind, seed, comparison.plan.tasks
        runs = runs_of(comparison.lines())
        self.folders = {
            arm.partition(":")[2]: Path(comparison.saved(arm, seed, runs))
            for arm in comparison.plan.singles(kind)
        }
        config = dataclasses.replace(
            comparison.recipe("gated"),
            parts={task: str(folder) for task, folder in self.folders.items()},
            head=comparison.saved(HEAD, seed, runs),
            compare=False,
        )
        self.objective = MultitaskObjective(config, comparison.ground)
        self.encoder = self.objective.encoder
        self.objective.eval()
        use(self.encoder, None)

    @torch.no_grad()
    def matrix(self, sets: DevSets, place: str) -> dict[str, dict[str, dict[str, float]]]:
        """Return the rates of the base and of every adapter on every task.

        Args:
            sets: Recordings by task.
            place: What sets them apart from the dev recordings.
        """
        found = {}
        for label, name in {
            "(base)": None,
            **dict(zip(self.tasks, self.tasks, strict=True)),
        }.items():
            with active(self.encoder, name):
                found[label] = self.objective.task_scores(sets, place)
        return found

    @torch.no_grad()
    def score(self, way: str, sets: DevSets, place: str) -> dict[str, CorpusScore]:
        """Score a way that trains nothing.

        Args:
            way: One of `FREE`.
            sets: Recordings by task.
            place: What sets them apart from the dev recordings.
        """
        if not FREE[way][0]:
            return self._oracle(sets, place)
        with self.composed(way) as (names, handle):
            if RETRIEVER in handle.notes:
                self.objective.task_scores(
                    sets, place, lambda name, signals: self._routed(handle, name, signals)
                )
            else:
                with active(self.encoder, names):
                    self.objective.task_scores(sets, place)
        return dict(sets.scored)

    @contextmanager
    def composed(self, way: str) -> Iterator[tuple[Names, Handle]]:
        """Put the adapters together and take what was made apart again at the end.

        Args:
            way: One of `FREE` that is not told the task.

        Yields:
            What is to be active, and the first of it.
        """
        index = self.folder_of_index
        text = FREE[way][0]
        if "{index}" in text and not index.is_dir():
            self.index()
        before = set(attachments(self.encoder))
        joined = text.format(parts=", ".join(self.tasks), index=f'"{index}"')
        names = compose(self.encoder, joined, name="way", activate=False)
        try:
            yield names, attachment(self.encoder, names[0])
        finally:
            for fresh in set(attachments(self.encoder)) - before:
                remove(self.encoder, fresh)

    def _oracle(self, sets: DevSets, place: str) -> dict[str, CorpusScore]:
        found: dict[str, CorpusScore] = {}
        for task in self.tasks:
            own_set = DevSets({task: sets.sets[task]}, sets.normaliser, sets.language)
            with active(self.encoder, task):
                self.objective.task_scores(own_set, place)
            found |= own_set.scored
        return found

    def _routed(self, handle: Handle, name: str, signals: list[Signal]) -> list[str]:
        with self.chosen(handle, self.clips(signals)):
            return self.objective.read(name, signals)

    def chosen(self, handle: Handle, clips: Sequence[Clip]) -> AbstractContextManager[None]:
        """Choose adapters for recordings by sound, and let them act.

        Args:
            handle: Of a composition that chooses.
            clips: What it listens to, one per row.
        """
        retriever: Retriever = handle.notes[RETRIEVER]
        return active(self.encoder, handle.name, {ROW_WEIGHTS: retriever.weights(clips)})

    def clips(self, signals: Sequence[Signal]) -> list[torch.Tensor]:
        """Return recordings as the recogniser hears them."""
        rate, margin_s = self.encoder.sample_rate, self.objective.margin_s
        return [torch.from_numpy(add_margin(one, rate, margin_s)) for one in signals]

    @property
    def folder_of_index(self) -> Path:
        """Where the index of these adapters lies."""
        return self.comparison.folder / f"index-{self.kind}-s{self.seed}"

    def index(self) -> Index:
        """Write the adapters' cards and their index, its threshold chosen on dev."""
        layers = layers_of(self.encoder)
        for task, folder in self.folders.items():
            signals, said = self._training(task)
            described = self.described(signals, layers)
            text = self.comparison.texts[task]
            save_card(make_card(self.encoder, task, described, layers, text, said), folder)
        index = build_index(self.encoder, list(self.folders.values()), self.folder_of_index)
        dev = [signal for items in self.comparison.ground.dev.values() for signal, _ in items]
        index = index.calibrated(self.described(dev, layers))
        save_index(index, self.folder_of_index)
        return index

    def described(self, signals: Sequence[Signal], layers: Sequence[int]) -> Described:
        """Describe recordings.

        Args:
            signals: Mono samples.
            layers: The layers that listen.
        """
        return describe_all(self.encoder, self.clips(signals), layers)

    def _training(self, task: str) -> tuple[list[Signal], list[str]]:
        """Return training recordings of a task, and what is said in them."""
        rows = [row for row in self.objective.speech.utterances if task_of(row) == task]
        chosen = rows[:: max(1, len(rows) // DESCRIBED)][:DESCRIBED]
        said = [row.text or "" for row in chosen]
        return [own.read_own(row, 16000)[0] for row in chosen], said


def routing(
    objective: MultitaskObjective, items: Items, rows: int = 16
) -> dict[str, dict[str, list[float]]]:
    """Return the mean weight of every part of a fusion, by task and site.

    Args:
        objective: A run that fused.
        items: Recordings by task.
        rows: Recordings of each task that are looked at.
    """
    assert objective.handle is not None
    found: dict[str, dict[str, list[float]]] = {}
    for task, recordings in items.items():
        signals = [signal for signal, _ in recordings[:rows]]
        rate, margin_s = objective.encoder.sample_rate, objective.margin_s
        clips = [torch.from_numpy(add_margin(one, rate, margin_s)) for one in signals]
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            meter = stack.enter_context(weights_noted(objective.handle))
            objective.encoder.encode(clips)
        found[task] = {
            role: [round(one, 4) for one in weights.mean(0).tolist()]
            for role, weights in meter.sites.items()
        }
    return found


def gradient_cosine(comparison: Comparison, run: Run, batches: int = 2) -> float:
    """Return the mean cosine between the gradients of all pairs of tasks, dropout off.

    Args:
        comparison: The comparison.
        run: A finished run of an adapter on the mix.
        batches: Of each task, over which its gradient is summed.
    """
    state = load_file(comparison.target(run) / "state.safetensors")
    gradients = []
    for task in comparison.plan.tasks:
        config = dataclasses.replace(comparison.config(run), tasks=(task,))
        objective = MultitaskObjective(config, comparison.ground)
        objective.load_state_dict(state)
        objective.eval()
        for step in range(batches):
            objective(objective.batch(step, 0))[0].backward()
        assert objective.adapter is not None
        parts = [one.grad for one in objective.adapter.parameters() if one.grad is not None]
        gradients.append(
            torch.nn.functional.normalize(torch.cat([p.flatten() for p in parts]), dim=0)
        )
    cosines = torch.stack(gradients) @ torch.stack(gradients).T
    return float(cosines[~torch.eye(len(gradients), dtype=torch.bool)].mean())

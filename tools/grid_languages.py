"""Every adapter method on a new language, at one budget, beside full fine-tuning and a head alone.

A chosen run is scored through what a user would load: its folder, read by `speechadapt.load`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import operator
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grid_tables
import numpy as np
import soxr
import torch
from grid_plan import ROOT, WHOLE, Line, Plan, Run
from grid_study import Batches, SharedInputs, Study

from speechadapt.adapters.catalog import method as method_of
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.data.corpora import pack
from speechadapt.encoders.base import Encoder
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser
from speechadapt.training.adapt.budget import size_adapter
from speechadapt.training.adapt.parts import load_base
from speechadapt.training.adapt.text import Speller
from speechadapt.training.loop import train
from speechadapt.training.speech import data_root
from speechadapt.training.tasks import adapt

RECIPES = ROOT / "recipes" / "adapt"
PREFIX = "language_"
SHARE = 0.04
# Methods that adapt one encoder to one kind of speech, each by itself.
METHODS = (
    "adapter_bias",
    "ast_bottleneck",
    "ast_conformer",
    "houlsby",
    "hydra_heads",
    "linear_bottleneck",
    "lora",
    "native_length",
    "parallel",
    "pfeiffer",
    "pissa",
)
PLAN = Plan((*WHOLE, *METHODS), rates=(1e-3, 3e-3, 8e-3, 2e-2), seeds=(1, 2, 3))
# Full fine-tuning on Mandarin is as good at a lower rate, so there every arm has that one too.
FIRST_PLAN = dataclasses.replace(PLAN, rates=(5e-4, *PLAN.rates))
# Settings that are not left at a method's defaults; widths follow from the budget.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "native_length": {"rank": 16},  # of stem convolutions, where the encoder has any
    "parallel": {"scale_kind": "learned"},
}
BATCH = 32
COST_STEPS = 8


def plan_of(language: str) -> Plan:
    """Return the runs of a language.

    Args:
        language: Its name.
    """
    return FIRST_PLAN if language == "zh" else PLAN


def languages() -> list[str]:
    """Return the languages that have a recipe."""
    return sorted(path.stem.removeprefix(PREFIX) for path in RECIPES.glob(f"{PREFIX}*.yaml"))


class Language(Study):
    """The comparison on one language.

    Args:
        name: One of `languages`.
        plan: Its runs; None takes those of `plan_of`.
        share: Largest share of the encoder's parameters that an adapter may have.

    Raises:
        ConfigError: There is no recipe for the language.
    """

    subject = "language"
    results = "languages"
    title = "New languages: every arm"
    note = grid_tables.NOTE

    def __init__(self, name: str, plan: Plan | None = None, share: float = SHARE) -> None:
        known = languages()
        if name not in known:
            raise ConfigError(f"there is no language '{name}'.{near_misses(name, known)}")
        self.name = name
        self.recipe = f"adapt/{PREFIX}{name}"
        self.plan = plan_of(name) if plan is None else plan
        self.share = share
        self._encoder: Encoder | None = None

    def common(self) -> dict[str, Any]:
        """Return rates, seeds and budget; see `Study.common`."""
        return {
            "rates": self.plan.rates,
            "seeds": self.plan.seeds,
            "share": self.share,
            "settings": {name: dict(values) for name, values in SETTINGS.items()},
        }

    def config(self, recipe: adapt.Config, run: Run) -> adapt.Config:
        """Return the recipe's settings with arm, size, rate and seed; see `Study.config`."""
        trainer = dataclasses.replace(
            recipe.trainer,
            learning_rate=run.rate,
            seed=run.seed,
            evaluate_every=recipe.trainer.steps,
        )
        changes: dict[str, Any] = {"trainer": trainer, "adapter_rate": None, "head_rate": None}
        if run.arm in WHOLE:
            changes |= {"arm": run.arm}
        else:
            changes |= {"arm": "adapter", "method": run.arm, "adapter": self._sized(recipe, run)}
        return dataclasses.replace(recipe, **changes)

    def _sized(self, recipe: adapt.Config, run: Run) -> dict[str, Any]:
        """Return the settings that make the adapter as wide as the budget allows."""
        if self._encoder is None:
            self._encoder, _ = load_base(recipe.base, recipe.padding)
        most = self.share * sum(part.numel() for part in self._encoder.model.parameters())
        given = SETTINGS.get(run.arm, {})
        return dict(size_adapter(self._encoder, run.arm, given, (), "none", most).settings)

    def build(self, config: adapt.Config, run: Run, batches: Batches) -> adapt.AdaptObjective:
        """Return the task of a run; see `Study.build`."""
        return build(config, run, batches)

    def facts(self, config: adapt.Config, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dev scores; see `Study.facts`."""
        return facts(config, report)

    def score(self, config: adapt.Config, folder: Path) -> dict[str, Any]:
        """Transcribe the test recordings and count edits, by id; see `Study.score`."""
        return score(config, folder)

    def cost(self, config: adapt.Config) -> dict[str, Any]:
        """Return an arm's step time and memory; see `cost_apart`."""
        return cost_apart(config)

    def section(self, name: str, lines: Sequence[Line]) -> list[str]:
        """Return the tables of a language; see `Study.section`."""
        return grid_tables.section(name, self._plan_of(name), lines)

    def claimed(self, name: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Return a language's figure in the README; see `Study.claimed`."""
        return grid_tables.claimed(name, self._plan_of(name), lines)

    def _plan_of(self, name: str) -> Plan:
        return self.plan if name == self.name else plan_of(name)


def build(config: adapt.Config, run: Run, batches: Batches) -> adapt.AdaptObjective:
    """Return the task of a run, whose batches are those of every other arm; see `Study.build`."""
    objective = adapt.build(config)
    shared = SharedInputs(objective.inputs.batch, batches, (run.seed,))
    objective.inputs.batch = shared.batch  # type: ignore[method-assign]
    return objective


def facts(config: adapt.Config, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dev scores of a finished run; see `Study.facts`."""
    (scores,) = report["scores"]["last"].values()
    score = scores["headline"] if config.score == "headline" else config.score
    return {
        "score": score,
        "dev": scores[score],
        "dev_wer": scores["wer"],
        "dev_cer": scores["cer"],
        "dev_items": scores["items"],
        "merges": config.arm == "adapter" and _merges(config),
    }


def _merges(config: adapt.Config) -> bool:
    method = method_of(config.method)
    return method.of(bind(method.config, config.adapter)[0]).merges


def score(config: adapt.Config, folder: Path) -> dict[str, Any]:
    """Transcribe the test recordings and count edits, by id; see `Study.score`."""
    if config.arm == "full":
        recogniser = load(folder, word_timestamps=False)
    else:
        recogniser = load(config.base or None, adapter=folder, word_timestamps=False)
    root = data_root(config.data)
    spell = Speller(config.normaliser, config.language)
    items = [
        replace(one, text=spell(one))
        for one in pack.load_splits(root, config.data.dev, "test")
        if one.text
    ]
    items.sort(key=lambda one: one.id)
    texts: list[str] = []
    for start in range(0, len(items), BATCH):
        signals = [_samples(recogniser, root, one) for one in items[start : start + BATCH]]
        texts += [found.text for found in recogniser.decode_batch(signals)]
    pairs = [
        Pair(one.id, one.text, text, one.speaker, one.lang)
        for one, text in zip(items, texts, strict=True)
    ]
    scored = score_pairs(pairs, config.normaliser, config.language or None)
    name = scored.headline if config.score == "headline" else config.score
    counts = [one.characters if name == "cer" else one.words for one in scored.items]
    return {
        "score": name,
        "wer": scored.wer,
        "cer": scored.cer,
        "edits": [one.edits for one in counts],
        "units": [one.reference for one in counts],
        "speakers": [one.pair.speaker for one in scored.items],
    }


def cost_apart(config: adapt.Config) -> dict[str, Any]:
    """Return an arm's step time and memory, measured in a fresh process, alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(cost, config, torch.get_num_threads()).result()


def _samples(recogniser: Recogniser, root: Path, item: Any) -> Any:
    samples, rate = pack.read_audio(root, item)
    if rate != recogniser.sample_rate:
        samples = soxr.resample(samples, rate, recogniser.sample_rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def cost(config: adapt.Config, threads: int) -> dict[str, Any]:
    """Train a few steps in this process; return their median time and the memory they took.

    Args:
        config: Settings of a run.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    objective = adapt.build(config)
    batches = [objective.batch(step, 0) for step in range(COST_STEPS)]
    objective.inputs.batch = lambda step, rank, kept: dict(batches[step])  # type: ignore[method-assign]
    trainer = replace(config.trainer, steps=COST_STEPS, evaluate_every=COST_STEPS)
    facts: dict[str, Any] = {}
    # processor time, because other work on the machine does not lengthen it
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    ends: list[float] = []

    def note(step: int, seconds: float) -> None:
        ends.append(clock())
        facts.update(meter.facts())  # before the evaluation, which takes memory of its own

    meter, objective.after_step = objective.meter, note  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(objective, trainer, Path(folder))
    return {
        "step_s": round(statistics.median(map(operator.sub, ends[2:], ends[1:])), 4),
        "memory": facts["peak_memory"],
        "memory_of": facts["peak_memory_of"],
    }

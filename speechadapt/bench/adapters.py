"""Every adapter method on one encoder: what it costs, and what it is worth on one recipe.

Each method gets the widest adapter that keeps to one budget. Times are ratios: a forward pass
against that of the bare encoder, a training step against one of full fine-tuning, both sides taking
turns on one batch. Scores come from the recipe, every method trained alike on the same batches.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.bench.clips import read_clips
from speechadapt.bench.passes import timed
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import read_json
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.budget import size_adapter
from speechadapt.training.adapt.config import TranscribedConfig
from speechadapt.training.adapt.parts import load_base
from speechadapt.training.adapt.transcribed import REPORT_FILE
from speechadapt.training.loop import train
from speechadapt.training.tasks import adapt

BARE, FULL, HEAD = "bare", "full", "head"
Row = dict[str, Any]
Acting = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Bench:
    """What every method is measured on.

    Args:
        options: What was asked for.
        recipe: Settings of the recipe that scores; None measures speed alone.
        bare: The encoder without adapters.
        full: A copy whose every weight is trained.
        batch: Features and lengths of the timed clips.
    """

    options: AdapterBench
    recipe: TranscribedConfig | None
    bare: Encoder
    full: Encoder
    batch: tuple[Tensor, Tensor]

    @property
    def most(self) -> float:
        """Parameters not to be exceeded."""
        return self.options.share / 100 * _size(self.bare.model)


def prepare(options: AdapterBench, recipe: Any = None) -> Bench:
    """Load the encoder and the clips.

    Args:
        options: What was asked for.
        recipe: Settings of a recipe; None measures speed alone.

    Raises:
        CatalogError: There is no such model.
        ConfigError: The recipe adapts no encoder to transcripts.
    """
    torch.set_num_threads(options.threads)
    if recipe is not None and type(recipe) is not adapt.Config:
        raise ConfigError(
            f"--recipe '{options.recipe}' is of another task; methods are compared by recipes of "
            "the task adapt, such as adapt/language_zh."
        )
    bare = _encoder(options)
    full = copy.deepcopy(bare)
    full.model.requires_grad_(True)
    clips = read_clips((), Path(), bare.sample_rate, options.clips)
    features, lengths = bare.extract([torch.from_numpy(clip.waveform) for clip in clips])
    device = torch.device(options.device)
    return Bench(options, recipe, bare, full, (features.to(device), lengths.to(device)))


def measure_baseline(bench: Bench, name: str) -> Row:
    """Score full fine-tuning, or the head alone.

    Args:
        bench: What everything is measured on.
        name: `full` or `head`.
    """
    trained = _size(bench.full.model) if name == FULL else 0
    row: Row = {"method": name, "trained": trained, "forward": 1.0}
    row |= {"step": 1.0} if name == FULL else {}
    if bench.recipe is None:
        return row
    arm: Any = name
    rates = bench.options.full_rate_list if name == FULL else bench.options.rate_list
    return row | _scored(bench, dataclasses.replace(bench.recipe, arm=arm), rates)


def measure_method(bench: Bench, name: str) -> Row:
    """Size, time and score one method; what does not fit is said, not raised.

    Args:
        bench: What everything is measured on.
        name: Of the method.
    """
    encoder = _encoder(bench.options)
    try:
        size = size_adapter(encoder, name, {}, (), "none", bench.most, firm=False)
        found = _timed(bench, encoder, name, size.settings)
    except SpeechadaptError as error:
        return {"method": name, "problem": str(error)}
    row = {"method": name, "settings": dict(size.settings), **found}
    if bench.recipe is None:
        return row
    changes: dict[str, Any] = {"arm": "adapter", "method": name, "adapter": dict(size.settings)}
    rates = bench.options.rate_list or (method_of(name).learning_rate,)
    return row | _scored(bench, dataclasses.replace(bench.recipe, **changes), rates)


def _timed(bench: Bench, encoder: Encoder, name: str, settings: Mapping[str, Any]) -> Row:
    kind = method_of(name)
    config: Any = bind(kind.config, settings)[0]
    kind = kind.of(config)
    handle = attach(encoder, name, config=config)
    rows = len(bench.batch[1])
    conditions = {} if kind.example is None else dict(kind.example(rows, encoder.dim))

    def acting() -> AbstractContextManager[None]:
        return active(encoder, handle.name, conditions)

    handle.module.to(bench.options.device).train()
    forward = _ratios(
        bench,
        lambda: _forward(encoder, bench.batch, acting),
        lambda: _forward(bench.bare, bench.batch),
    )
    step = _ratios(
        bench,
        _stepping(encoder, handle.module, bench.batch, acting),
        _stepping(bench.full, bench.full.model, bench.batch),
    )
    return {
        "trained": handle.num_parameters(),
        "forward": statistics.median(forward),
        "step": statistics.median(step),
        "rounds": {"forward": forward, "step": step},
        "merges": kind.merges,
        "told": sorted(conditions),
    }


def _ratios(bench: Bench, own: Callable[[], object], other: Callable[[], object]) -> list[float]:
    """Return the ratios of rounds in which two pieces of work take turns, after one to warm up."""
    device = torch.device(bench.options.device)
    found = []
    for number in range(bench.options.rounds + 1):
        pair = timed(own, device)[0], timed(other, device)[0]
        if number:
            found.append(pair[0] / pair[1])
    return found


@torch.no_grad()
def _forward(
    encoder: Encoder, batch: tuple[Tensor, Tensor], acting: Acting = nullcontext
) -> Tensor:
    with acting():
        frames: Tensor = encoder(*batch)[0]
    return frames


def _stepping(
    encoder: Encoder,
    trained: nn.Module,
    batch: tuple[Tensor, Tensor],
    acting: Acting = nullcontext,
) -> Callable[[], None]:
    """Return a whole training step: forward, backward, AdamW."""
    parameters = [one for one in trained.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-6)

    def step() -> None:
        with acting():
            frames = encoder(*batch)[0]
        frames.float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _scored(bench: Bench, config: TranscribedConfig, rates: Sequence[float]) -> Row:
    """Train at each rate, the recipe's own where there is none; return the best score on dev."""
    by_rate: dict[str, float] = {}
    for rate in rates or (config.trainer.learning_rate,):
        one = _with_rate(config, rate, bench.options)
        problems = one.problems()
        if problems:
            return {"unscored": " ".join(problems)}
        by_rate[f"{rate:g}"] = _train(one)
    best = min(by_rate, key=lambda rate: by_rate[rate])
    return {"score": by_rate[best], "rate": float(best), "by_rate": by_rate}


def _with_rate(config: TranscribedConfig, rate: float, options: AdapterBench) -> TranscribedConfig:
    steps = options.steps or config.trainer.steps
    trainer = dataclasses.replace(
        config.trainer,
        learning_rate=rate,
        steps=steps,
        evaluate_every=steps,
        warmup_steps=min(config.trainer.warmup_steps, max(1, steps // 4)),
        seed=options.seed,
        threads=options.threads,
    )
    changes: dict[str, Any] = {"adapter_rate": None, "head_rate": None, "base": options.model}
    return dataclasses.replace(config, trainer=trainer, **changes)


def _train(config: TranscribedConfig) -> float:
    """Return the dev score after the last step, as a fraction, the mean over the corpora."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(adapt.build(config), config.trainer, Path(folder))  # type: ignore[arg-type]
        if not result.finished:
            raise KeyboardInterrupt
        scores = read_json(Path(folder) / REPORT_FILE)["scores"]["last"].values()
    rates = [one[one["headline"] if config.score == "headline" else config.score] for one in scores]
    return float(statistics.fmean(rates))


def _encoder(options: AdapterBench) -> Encoder:
    encoder, _ = load_base(options.model, "full")
    encoder.freeze()
    return encoder.to(options.device)


def _size(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())

"""The training loop: steps, not epochs; exact resume; one process or several.

Built on Accelerate for devices, mixed precision and data parallelism. Every micro-step seeds its
own random streams from (seed, micro-step, rank), so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write_json, hash_json
from speechadapt.core.limits import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Probability,
    Range,
)
from speechadapt.core.seed import seed_everything
from speechadapt.training.interrupts import caught_signals
from speechadapt.training.objective import Objective
from speechadapt.training.optimiser import OptimizerName, clip_norms, make_optimizer
from speechadapt.training.prefetch import Prefetch
from speechadapt.training.record import Record
from speechadapt.training.schedule import warmup_cosine
from speechadapt.training.state import latest_checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how to step.

    Args:
        steps: Optimiser steps of the whole schedule.
        optimizer: `adamw`, or `muon` (see `training/optimiser.py`).
        learning_rate: Peak learning rate.
        warmup_steps: Steps of the linear rise.
        final_rate: Last learning rate as a fraction of the peak.
        weight_decay: Decoupled; not applied to vectors (norms, biases).
        betas: Of AdamW.
        clip_norm: Largest gradient norm.
        accumulate: Micro-steps per optimiser step.
        precision: `no`, `bf16` or `fp16`; reduced precision needs a GPU.
        average: Decay of the moving average of the weights; 0 keeps none. The average is what is
            evaluated and saved.
        seed: Of everything random.
        log_every: Steps between log lines.
        evaluate_every: Steps between evaluations.
        checkpoint_every: Steps between checkpoints.
        patience: End early after this many evaluations in a row without a better score; 0 runs all
            steps.
        sitting_s: Stop with a checkpoint after this many seconds; 0 runs to the end.
        threads: CPU threads; 0 leaves torch's default.
        gradient_checkpointing: Recompute activations in the backward pass.
        tensorboard: Also write TensorBoard events (extra `track`).
    """

    steps: Count = 1000
    optimizer: OptimizerName = "adamw"
    learning_rate: Positive = 1e-3
    warmup_steps: CountOrNone = 100
    final_rate: Probability = 0.02
    weight_decay: NotNegative = 0.01
    betas: Annotated[tuple[float, float], Range(0.0, 1.0)] = (0.9, 0.98)
    clip_norm: Positive = 1.0
    accumulate: Count = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    average: Probability = 0.0
    seed: int = 0
    log_every: Count = 20
    evaluate_every: Count = 500
    checkpoint_every: Count = 200
    patience: CountOrNone = 0
    sitting_s: NotNegative = 0.0
    threads: CountOrNone = 0
    gradient_checkpointing: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainResult:
    """How a sitting ended.

    Args:
        step: Optimiser steps done.
        finished: Whether the schedule is complete, or was ended early by `patience`.
        scores: The last evaluation (of the first process; the others know none).
        best: The lowest `score` seen, and its step.
        signal: The signal that asked to stop; 0 where none did.
    """

    step: int
    finished: bool
    scores: dict[str, float]
    best: tuple[float, int] | None
    signal: int = 0


def train(objective: Objective, config: TrainerConfig, folder: Path) -> TrainResult:
    """Train until the schedule ends, the sitting is over, or a signal asks to stop.

    Resumes from `folder/checkpoints` where there is one. Leaves `log.jsonl`, `checkpoints/`,
    `best/` and, at the end, `last/` (model folders) and what `Objective.finish` writes.

    Args:
        objective: The task.
        config: How to step.
        folder: The run's folder.

    Raises:
        CheckpointError: The folder holds a run with another configuration or of another number of
            processes, or the loss or a gradient is not a number.
        ConfigError: `gradient_checkpointing` is asked of a model that offers none.
        MissingExtra: `tensorboard` is asked for and not installed.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.gradient_checkpointing:
        objective.checkpoint_gradients()
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=objective.skips_parameters),
            # The other processes wait while the first one evaluates.
            InitProcessGroupKwargs(timeout=timedelta(hours=3)),
        ],
    )
    run = _Run(objective, config, folder, accelerator)
    run.resume()
    return run.go()


class _Run:
    def __init__(
        self, objective: Objective, config: TrainerConfig, folder: Path, accelerator: Accelerator
    ) -> None:
        self.config = config
        self.folder = folder
        self.accelerator = accelerator
        self.step = 0
        self.best: tuple[float, int] | None = None
        self.scores: dict[str, float] = {}
        self.seconds = 0.0
        self.started = time.monotonic()
        self.signal = 0
        self.saved = -1
        self.objective = objective
        self.parallel = accelerator.num_processes > 1
        settings = config.optimizer, config.learning_rate, config.weight_decay, config.betas
        optimizer = make_optimizer(objective, *settings, objective.groups())
        prepared = accelerator.prepare(objective, optimizer)
        self.wrapped, self.optimizer = prepared
        self.average = _clone(objective) if config.average else None
        self.record: Record | None = None
        # These change when a run stops and what it shows, never what it is asked to compute.
        free = {"sitting_s": 0, "threads": 0, "log_every": 0, "checkpoint_every": 0}
        settings_now = {**asdict(config), **free}
        del settings_now["patience"]  # free too, and absent from the checkpoints of older releases
        self.fingerprint = hash_json(settings_now)

    def resume(self) -> None:
        target = latest_checkpoint(self.folder / "checkpoints")
        if target is None:
            return
        state, average = load_checkpoint(target, self.objective, self.optimizer.optimizer)
        self._check(state, average)
        self.step, self.seconds = state["step"], state["seconds"]
        self.best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self.scores = state.get("scores", {})
        self.saved = self.step
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if average is not None:
            device = self.objective.device
            self.average = {name: tensor.to(device) for name, tensor in average.items()}

    def _check(self, state: Mapping[str, Any], average: Mapping[str, Tensor] | None) -> None:
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.folder.name} holds a run with other trainer settings; "
                f"choose another run folder or restore the settings in its config."
            )
        processes = self.accelerator.num_processes
        if state.get("processes", processes) != processes:
            raise CheckpointError(
                f"{self.folder.name} holds a run of {state['processes']} processes, this one has "
                f"{processes}; every process draws its own batches, so start as many."
            )
        if (average is None) != (self.average is None):
            raise CheckpointError(
                f"the averaged weights of {self.folder.name} are "
                f"{'missing from its checkpoint' if average is None else 'not asked for'}."
            )

    def go(self) -> TrainResult:
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            self.record = Record(self.folder, config.steps, self.step, config.tensorboard)
        if self.step == 0:
            seed_everything(config.seed, "begin")
            self.objective.begin()
        batches = Prefetch(
            lambda micro: self.objective.batch(micro, self.accelerator.process_index),
            config.steps * config.accumulate,
        )
        stopping = self._exhausted()
        with caught_signals(self._note_signal):
            try:
                while self.step < config.steps and not stopping:
                    figures = self._optimizer_step(batches)
                    self.step += 1
                    if self.step % config.log_every == 0 or self.step == config.steps:
                        self._log(figures)
                    if self.step % config.evaluate_every == 0 or self.step == config.steps:
                        self._evaluate()
                    stopping = self._stops()
                    if self.step % config.checkpoint_every == 0 or stopping:
                        self._checkpoint()
            finally:
                batches.close()
        finished = self.step >= config.steps or self._exhausted()
        self._finish(finished)
        return TrainResult(self.step, finished, self.scores, self.best, self.signal)

    def _exhausted(self) -> bool:
        if not self.config.patience or self.best is None:
            return False
        return self.step - self.best[1] >= self.config.patience * self.config.evaluate_every

    def _finish(self, finished: bool) -> None:
        if finished:
            self._checkpoint()
            self._save("last")
            if self.record is not None:
                self.objective.finish(self.folder)
        if self.record is not None:
            self.record.close()
        if self.parallel:
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()

    def _stops(self) -> bool:
        over = self.config.sitting_s and self._elapsed() > self.config.sitting_s
        wish = bool(over) or self.signal != 0 or self._exhausted()
        if not self.parallel:
            return wish
        # Signals, clocks and scores differ by process; all must leave the loop at the same step.
        wishes = torch.tensor(float(wish), device=self.accelerator.device)
        return bool(self.accelerator.reduce(wishes, "sum") > 0)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _optimizer_step(self, batches: Prefetch) -> dict[str, float]:
        config, accelerator, started = self.config, self.accelerator, time.monotonic()
        factor = warmup_cosine(self.step, config.steps, config.warmup_steps, config.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor * group["factor"]
        figures: dict[str, float] = {}
        self.wrapped.train()
        for number in range(config.accumulate):
            micro = self.step * config.accumulate + number
            batch = {
                name: part.to(accelerator.device) for name, part in batches.take(micro).items()
            }
            seed_everything(config.seed, "step", micro, accelerator.process_index)
            with accelerator.accumulate(self.wrapped):
                loss, extra = self.wrapped(batch)
                accelerator.backward(loss)
            value = float(loss.detach())
            self._must_be_finite("loss", value)
            for name, part in {"loss": value, **extra}.items():
                figures[name] = figures.get(name, 0.0) + part / config.accumulate
        accelerator.unscale_gradients()
        norm = clip_norms(self.objective, self.objective.clipped_apart(), config.clip_norm)
        self._must_be_finite("gradient", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(self.step + 1, time.monotonic() - started)
        self._update_average()
        return figures | {"grad_norm": norm, "lr": config.learning_rate * factor}

    def _must_be_finite(self, name: str, value: float) -> None:
        # The scaler of fp16 skips steps that overflow, so there only a lost loss is an error.
        overflow = self.accelerator.scaler is not None and (name != "loss" or math.isinf(value))
        if not math.isfinite(value) and not overflow:
            raise CheckpointError(
                f"the {name} is {value} at step {self.step}; the last checkpoint is whole. "
                f"Start anew with a smaller trainer.learning_rate or trainer.clip_norm."
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        # A short memory at first keeps the random start out of the average.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        live = self.objective.state_dict()
        for name, kept in self.average.items():
            if kept.is_floating_point():
                kept.lerp_(live[name].to(kept.dtype), 1 - decay)
            else:
                kept.copy_(live[name])

    def _log(self, figures: dict[str, float]) -> None:
        if self.parallel:
            values = torch.tensor(list(figures.values()), device=self.accelerator.device)
            shared = self.accelerator.reduce(values, "mean").tolist()
            figures = dict(zip(figures, shared, strict=True))
        if self.record is not None:
            self.record.figures(self.step, self.seconds + self._elapsed(), figures)

    def _evaluate(self) -> None:
        if self.record is not None:
            with self._averaged():
                self.objective.eval()
                with torch.no_grad():
                    self.scores = self.objective.evaluate()
            self.record.scores(self.step, self.scores)
            score = self.scores[self.objective.score]
            if math.isfinite(score) and (self.best is None or score < self.best[0]):
                self.best = (score, self.step)
                self._save("best")
        if self.parallel:
            self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> None:
        if not self.accelerator.is_main_process or self.saved == self.step:
            return
        scaler = self.accelerator.scaler
        state = {
            "fingerprint": self.fingerprint,
            "processes": self.accelerator.num_processes,
            "best": self.best,
            "scores": self.scores,
            "seconds": self.seconds + self._elapsed(),
        } | ({} if scaler is None else {"scaler": scaler.state_dict()})
        save_checkpoint(
            self.folder / "checkpoints",
            self.step,
            self.objective.state_dict(),
            self.optimizer.optimizer,
            self.average,
            state,
        )
        self.saved = self.step

    def _save(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        with self._averaged():
            self.objective.save(self.folder / name)
        atomic_write_json(
            self.folder / name / "training.json", {"step": self.step, "dev": self.scores}
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        live = _clone(self.objective)
        self.objective.load_state_dict(self.average)
        try:
            yield
        finally:
            self.objective.load_state_dict(live)

    def _note_signal(self, number: int) -> None:
        self.signal = number


def _clone(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

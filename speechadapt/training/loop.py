"""The training loop: steps, not epochs; exact resume; one process or several.

Built on Accelerate for devices, mixed precision and data parallelism. Every micro-step seeds its own
random streams from (seed, micro-step, rank), so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import append_line, atomic_write_json, hash_json
from speechadapt.core.seed import seed_everything
from speechadapt.training.objective import Batch, Objective
from speechadapt.training.progress import Progress
from speechadapt.training.schedule import warmup_cosine
from speechadapt.training.state import latest_checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how to step.

    Args:
        steps: Optimiser steps of the whole schedule.
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
        sitting_s: Stop with a checkpoint after this many seconds; 0 runs to the end.
        threads: CPU threads; 0 leaves torch's default.
        gradient_checkpointing: Recompute activations in the backward pass.
        tensorboard: Also write TensorBoard events (extra `track`).
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: str = "no"
    average: float = 0.0
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 500
    checkpoint_every: int = 200
    sitting_s: float = 0.0
    threads: int = 0
    gradient_checkpointing: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainResult:
    """How a sitting ended.

    Args:
        step: Optimiser steps done.
        finished: Whether the schedule is complete.
        scores: The last evaluation.
        best: The lowest `score` seen, and its step.
    """

    step: int
    finished: bool
    scores: dict[str, float]
    best: tuple[float, int] | None


def train(objective: Objective, config: TrainerConfig, folder: Path) -> TrainResult:
    """Train until the schedule ends, the sitting is over, or a signal asks to stop.

    Resumes from `folder/checkpoints` where there is one. Leaves `log.jsonl`, `checkpoints/`,
    `best/` and, at the end, `last/` (model folders).

    Args:
        objective: The task.
        config: How to step.
        folder: The run's folder.

    Raises:
        CheckpointError: The folder holds a run with another configuration, or the loss is not a
            number.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        cpu=not torch.cuda.is_available(),
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
        self.stopping = False
        self.objective = objective
        optimizer = torch.optim.AdamW(
            _groups(objective, config.weight_decay), lr=config.learning_rate, betas=config.betas
        )
        prepared = accelerator.prepare(objective, optimizer)
        self.wrapped, self.optimizer = prepared
        self.average = _clone(objective) if config.average else None
        # `threads` and `sitting_s` change when a run stops, never what it computes.
        free = {"sitting_s": 0, "threads": 0, "log_every": 0, "checkpoint_every": 0}
        self.fingerprint = hash_json({**asdict(config), **free})

    def resume(self) -> None:
        target = latest_checkpoint(self.folder / "checkpoints")
        if target is None:
            return
        state, average = load_checkpoint(target, self.objective, self.optimizer.optimizer)
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.folder.name} holds a run with other trainer settings; "
                f"choose another run folder or restore the settings in its config."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.best = None if state["best"] is None else (state["best"][0], state["best"][1])
        if self.average is not None and average is not None:
            device = self.objective.device
            self.average = {name: tensor.to(device) for name, tensor in average.items()}

    def go(self) -> TrainResult:
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        progress = Progress(config.steps, self.step, show=self.accelerator.is_main_process)
        batches = _Prefetch(self.objective, self.accelerator, self.step * config.accumulate)
        with self._signals():
            while self.step < config.steps and not self.stopping:
                figures = self._optimizer_step(batches)
                self.step += 1
                if self.step % config.log_every == 0 or self.step == config.steps:
                    self._log(figures, started, progress)
                if self.step % config.evaluate_every == 0 or self.step == config.steps:
                    self._evaluate(progress)
                over = config.sitting_s and time.monotonic() - started > config.sitting_s
                self.stopping = self.stopping or bool(over)
                if self.step % config.checkpoint_every == 0 or self.stopping:
                    self._checkpoint(started)
        finished = self.step >= config.steps
        if finished:
            self._checkpoint(started)
            self._save("last")
        progress.close()
        return TrainResult(self.step, finished, self.scores, self.best)

    def _optimizer_step(self, batches: _Prefetch) -> dict[str, float]:
        config, accelerator = self.config, self.accelerator
        factor = warmup_cosine(self.step, config.steps, config.warmup_steps, config.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        figures: dict[str, float] = {}
        self.wrapped.train()
        for number in range(config.accumulate):
            micro = self.step * config.accumulate + number
            batch = batches.take(micro)
            seed_everything(config.seed, "step", micro, accelerator.process_index)
            with accelerator.accumulate(self.wrapped):
                loss, extra = self.wrapped(batch)
                accelerator.backward(loss)
            value = float(loss.detach())
            if value != value:
                raise CheckpointError(f"the loss is not a number at step {self.step}.")
            for name, part in {"loss": value, **extra}.items():
                figures[name] = figures.get(name, 0.0) + part / config.accumulate
        norm = accelerator.clip_grad_norm_(self.objective.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._update_average()
        return figures | {"grad_norm": float(norm), "lr": config.learning_rate * factor}

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

    def _log(self, figures: dict[str, float], started: float, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        seconds = self.seconds + time.monotonic() - started
        row = {"step": self.step, "seconds": round(seconds, 1)}
        append_line(self.folder / "log.jsonl", row | {k: round(v, 6) for k, v in figures.items()})
        if self.config.tensorboard:
            _tensorboard(self.folder, figures, self.step)
        progress.update(self.step, figures)

    def _evaluate(self, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        with self._averaged():
            self.objective.eval()
            with torch.no_grad():
                self.scores = self.objective.evaluate()
        append_line(self.folder / "log.jsonl", {"step": self.step, "dev": self.scores})
        progress.note(self.step, self.scores)
        score = self.scores[self.objective.score]
        if self.best is None or score < self.best[0]:
            self.best = (score, self.step)
            self._save("best")

    def _checkpoint(self, started: float) -> None:
        if not self.accelerator.is_main_process:
            return
        seconds = self.seconds + time.monotonic() - started
        state = {"fingerprint": self.fingerprint, "best": self.best, "seconds": seconds}
        save_checkpoint(
            self.folder / "checkpoints",
            self.step,
            self.objective.state_dict(),
            self.optimizer.optimizer,
            self.average,
            state,
        )

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

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: Any) -> None:
            self.stopping = True

        previous: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread: signals are the caller's
                break
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Prefetch:
    """Builds the next batch in a thread while the current one is used."""

    def __init__(self, objective: Objective, accelerator: Accelerator, micro: int) -> None:
        self._build: Callable[[int], Batch] = lambda index: objective.batch(
            index, accelerator.process_index
        )
        self._device = accelerator.device
        self._next: tuple[int, list[Batch | BaseException], Thread] | None = None

    def take(self, micro: int) -> Batch:
        if self._next is not None and self._next[0] == micro:
            _, box, thread = self._next
            thread.join()
            if isinstance(box[0], BaseException):
                raise box[0]
            batch = box[0]
        else:
            batch = self._build(micro)
        self._start(micro + 1)
        return {name: tensor.to(self._device) for name, tensor in batch.items()}

    def _start(self, micro: int) -> None:
        box: list[Batch | BaseException] = []

        def work() -> None:
            try:
                box.append(self._build(micro))
            except BaseException as error:  # handed to the thread that waits
                box.append(error)

        thread = Thread(target=work, daemon=True)
        thread.start()
        self._next = (micro, box, thread)


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _clone(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _tensorboard(folder: Path, figures: dict[str, float], step: int) -> None:
    from speechadapt.core.errors import MissingExtra

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("track", "trainer.tensorboard=true") from error
    with SummaryWriter(folder / "tensorboard") as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

"""One training step of LoRA on a frozen encoder: this package's, peft's, and with a frozen prefix.

Every side has its own copy of the same random weights, the same low-rank maps at query and value,
the same batch and optimiser, and runs the same encoder at native length; features are ready. So
what is left to differ is how the low-rank part is computed.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_facts import resident
from bench_native import build, timed

from speechadapt.adapters.attach import attach
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.whisper import WhisperEncoder
from speechadapt.training.adapt.frozen_prefix import (
    FrozenPrefix,
    MemoryCache,
    Reuse,
    frozen_depth,
    layer_count,
)

SIDES = ("ours", "peft", "reuse")
MEMORY_STEPS = 3
MB = 1 << 20


@dataclass(frozen=True)
class Setting:
    """What the sides have in common.

    Args:
        geometry: A name of `bench_native.GEOMETRIES`.
        seconds: Length of each clip.
        batch: Clips of a step.
        rank: Rank of the low-rank maps.
        dtype: Number format of the arithmetic; the weights are in float32.
        device: A torch device.
        threads: CPU threads.
        upper: Whether the upper half of the layers alone is adapted.
    """

    geometry: str
    seconds: float
    batch: int
    rank: int
    dtype: str
    device: str
    threads: int
    upper: bool = False


class Trainer:
    """A side that can make training steps.

    Args:
        side: `ours`, `peft` or `reuse`.
        setting: The rest.

    Attributes:
        parameters: What it trains.
    """

    def __init__(self, side: str, setting: Setting) -> None:
        self.device = torch.device(setting.device)
        self.dtype = getattr(torch, setting.dtype)
        self.encoder = build(setting.geometry, torch.float32, setting.device)["native"]
        self.encoder.freeze()
        features, lengths = self.encoder.extract(clips(setting.batch, setting.seconds))
        self.batch = features.to(self.device), lengths.to(self.device)
        roles = adapted_roles(self.encoder, setting.upper)
        self.reuse: Reuse | None = None
        if side == "peft":
            parameters = inject_peft(self.encoder, roles, setting.rank)
        else:
            config = {"rank": setting.rank, "alpha": setting.rank}
            handle = attach(self.encoder, "lora", config=config, roles=roles)
            parameters = list(handle.parameters())
            if side == "reuse":
                depth = frozen_depth(self.encoder, handle)
                self.reuse = Reuse(FrozenPrefix(self.encoder, depth), MemoryCache())
        self.parameters = parameters
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-3)

    def step(self) -> float:
        """Make one step; return the loss before it."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def loss(self) -> torch.Tensor:
        """Return a loss that every frame takes part in.

        It reads half of the channels: the mean square over all of them is 1 behind a LayerNorm,
        whatever the adapters do.
        """
        enabled = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled):
            if self.reuse is not None:
                frames, _ = self.reuse.whole("batch", *self.batch)
            else:
                frames, _ = self.encoder(*self.batch)
        return frames[..., ::2].float().square().mean()


def clips(batch: int, seconds: float) -> list[torch.Tensor]:
    """Return noise in as many clips; what is heard does not change the cost."""
    noise = torch.Generator().manual_seed(0)
    samples = int(seconds * 16000)
    return [0.1 * torch.randn(samples, generator=noise) for _ in range(batch)]


def adapted_roles(encoder: WhisperEncoder, upper: bool) -> list[str]:
    """Return the roles of query and value, of all layers or of the upper half."""
    layers = layer_count(encoder)
    first = layers // 2 if upper else 0
    return [f"layer.{n}.attn.{part}" for n in range(first, layers) for part in "qv"]


def inject_peft(
    encoder: WhisperEncoder, roles: Sequence[str], rank: int
) -> list[torch.nn.Parameter]:
    """Put peft's LoRA layers into an encoder's model and return what they train."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = [encoder.sites[role].write for role in roles]
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets)
    inject_adapter_in_model(config, encoder.model)
    return [one for one in encoder.model.parameters() if one.requires_grad]


def take_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Let sides work in turns; who goes first changes from round to round.

    Returns:
        Seconds of every round, by side.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(warm_up + rounds):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for side in order:
            spent, _ = timed(sides[side])
            if turn >= warm_up:
                seconds[side].append(spent)
    return seconds


def time_steps(
    names: Sequence[str], setting: Setting, rounds: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return seconds per step of every round by side, and what else was seen.

    Raises:
        ConfigError: The sides do not train as many parameters, or start from another loss.
    """
    trainers = {name: Trainer(name, setting) for name in names}
    starts = {name: float(one.loss().detach()) for name, one in trainers.items()}
    counts = {name: sum(part.numel() for part in one.parameters) for name, one in trainers.items()}
    first = starts[names[0]]
    same = all(abs(start - first) <= 1e-3 * abs(first) for start in starts.values())
    if len(set(counts.values())) > 1 or not same:
        raise ConfigError(
            f"sides of one comparison must compute the same, but train {counts} parameters and "
            f"start from the losses {starts}."
        )
    works = {name: several(one.step, steps) for name, one in trainers.items()}
    seconds = take_turns(works, rounds)
    per_step = {name: [one / steps for one in runs] for name, runs in seconds.items()}
    details = {
        "parameters": counts[names[0]],
        "saved_for_backward_mb": {
            name: round(saved_bytes(one) / MB, 2) for name, one in trainers.items()
        },
        "cache_build_s": {
            name: round(one.reuse.seconds, 4) for name, one in trainers.items() if one.reuse
        },
    }
    return per_step, details


def several(work: Callable[[], object], times: int) -> Callable[[], object]:
    """Return a function that does some work as many times."""
    return lambda: [work() for _ in range(times)]


def saved_bytes(trainer: Trainer) -> int:
    """Return the bytes that a step keeps for its backward pass, the weights not counted."""
    own = (*trainer.encoder.parameters(), *trainer.parameters)
    weights = {one.untyped_storage().data_ptr() for one in own}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.loss().backward()
    return sum(kept.values())


def peak_growth(side: str, setting: Setting) -> int:
    """Return by how many bytes a fresh process grows at most while it makes training steps.

    On a CPU that is the highest resident memory above the one before the first step, on an
    accelerator what torch has allocated there.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(grow, side, setting).result()


def grow(side: str, setting: Setting) -> int:
    """Make training steps in this process; return how many bytes it grew by at most."""
    torch.set_num_threads(setting.threads)
    trainer = Trainer(side, setting)

    def work() -> None:
        for _ in range(MEMORY_STEPS):
            trainer.step()

    return growth(work, trainer.device)


def growth(work: Callable[[], object], device: torch.device) -> int:
    """Work in this process; return how many bytes it grew by at most.

    Args:
        work: What is to be done.
        device: Where; on an accelerator what torch has allocated there counts.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # or free memory hides the growth
        if trim is not None:
            trim(0)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes the present one
    work()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) - before
    return resident("VmHWM") - before

"""Two processes that talk through torch.distributed, and an adapter trained in one or in both."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from speechadapt.adapters.attach import attach
from speechadapt.adapters.handle import Handle
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder

NUMBER = 2


def _work(rank: int, folder: Path, task: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUMBER
    )
    try:
        torch.save(task(rank), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def in_processes(task: Callable[[int], Any], folder: Path) -> list[Any]:
    """Run a task in two processes that can reach one another, and return what each returned.

    Args:
        task: Called with the process's number.
        folder: Where they meet; is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_work, args=(rank, folder, task)) for rank in range(NUMBER)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * NUMBER
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUMBER)]


class _Task(nn.Module):
    def __init__(self, encoder: Encoder, handle: Handle) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters = handle.module

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        target = torch.linspace(-1, 1, self.encoder.dim)
        return (self.encoder(features, lengths)[0] - target).square().mean()


def learned(
    model: Path, method: str, config: Any, steps: int, rank: int | None, parallel: bool = False
) -> dict[str, Tensor]:
    """Train an adapter of a tiny encoder for some steps and return its tensors.

    Args:
        model: The encoder's folder.
        method: The adapter's method.
        config: Its settings.
        steps: Steps of AdamW.
        rank: Number of this process, which is given its half of each batch; None gives it all.
        parallel: Whether gradients are averaged over the processes at every step.
    """
    torch.manual_seed(0)
    encoder = load_encoder(model, padding="native")
    handle = attach(encoder, method, config=config, roles=("attn.q", "ffn.down"))
    handle.module.train()
    task: nn.Module = _Task(encoder, handle)
    if parallel:
        task = DistributedDataParallel(task)
    clips = 0.1 * torch.randn(4, 3200, generator=torch.Generator().manual_seed(1))
    features, lengths = encoder.extract(list(clips))
    rows = slice(0, 4) if rank is None else slice(2 * rank, 2 * rank + 2)
    # a worker alone has a gradient as many times as large; epsilon is all that would notice
    optimiser = torch.optim.AdamW(handle.parameters(), lr=1e-2, eps=1e-20)
    for step in range(steps):
        optimiser.zero_grad()
        task(features[rows], lengths[rows]).backward()
        optimiser.step()
        handle.after_step(step + 1)
    return {key: tensor.detach().clone() for key, tensor in handle.module.tensors().items()}

"""Workers that train one part each of an adapter: processes, or shares of a batch within one.

A tensor that several workers train holds their parts along its first axis. A worker learns from its
own share of the rows alone. Where torch.distributed runs, every process stands for as many workers
as any other, in order, and the rows it is given are theirs; otherwise one process stands for all.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from speechadapt.core.errors import ConfigError


def hosted(workers: int) -> range:
    """Return the numbers of the workers that this process stands for.

    Args:
        workers: All of them.

    Raises:
        ConfigError: They cannot be divided evenly among the processes.
    """
    running = distributed.is_available() and distributed.is_initialized()
    processes = distributed.get_world_size() if running else 1
    if workers % processes:
        raise ConfigError(
            f"{workers} workers were to be divided among {processes} processes. Set the adapter's "
            f"number of workers to a multiple of {processes}, or start another number of processes."
        )
    each = workers // processes
    first = distributed.get_rank() * each if running else 0
    return range(first, first + each)


def shares(rows: int, workers: int) -> list[tuple[int, slice]]:
    """Divide a batch of this process among its workers, in order and as evenly as can be.

    Args:
        rows: Rows of the batch, at least 1. Where they are fewer than the workers, some get none
            and learn nothing from this batch.
        workers: Workers of all processes.

    Returns:
        A worker's number and its rows, for each worker that has some.

    Raises:
        ConfigError: See `hosted`.
    """
    mine = hosted(workers)
    ends = [rows * number // len(mine) for number in range(len(mine) + 1)]
    spans = zip(mine, ends[:-1], ends[1:], strict=True)
    return [(worker, slice(start, end)) for worker, start, end in spans if end > start]


def owned(parts: Float[Tensor, "workers ..."], worker: int) -> Float[Tensor, "workers ..."]:
    """Return all parts as they are, of which one worker's alone passes a gradient on.

    Args:
        parts: One part for each worker.
        worker: Whose part it is.
    """
    others = parts.detach()
    return torch.cat([others[:worker], parts[worker : worker + 1], others[worker + 1 :]])


@torch.no_grad()
def exchange(parts: Float[Tensor, "workers ..."]) -> int:
    """Overwrite the parts of the other processes' workers by what those processes hold.

    Args:
        parts: One part for each worker, written in place.

    Returns:
        Bytes that this process sent; 0 where it stands for all workers.

    Raises:
        ConfigError: See `hosted`.
    """
    mine = hosted(len(parts))
    if len(mine) == len(parts):
        return 0
    own = parts[mine.start : mine.stop].contiguous()
    received = [torch.empty_like(own) for _ in range(len(parts) // len(mine))]
    distributed.all_gather(received, own)
    parts.copy_(torch.cat(received))
    return own.numel() * own.element_size()

"""Which entries of some matrices to keep: scores, and the choice by them.

    magnitude  |w|
    snip       |w dL/dw|                     https://arxiv.org/abs/1810.02340
    grasp      w (H dL/dw), sign kept        https://arxiv.org/abs/2002.07376
    synflow    |w dR/dw|, R the flow of ones through the matrices' absolute values
                                             https://arxiv.org/abs/2006.05467

The entries with the highest scores are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.core.errors import MissingExtra

Gradients = Callable[[], list[Tensor]]
_STEP = 1e-2  # of a central difference, as a share of the weights' norm


def kept_entries(entries: int, density: float) -> int:
    """Return how many entries of a matrix a density keeps: one at least."""
    return max(1, round(density * entries))


def chosen(scores: Sequence[Tensor], counts: Sequence[int], everywhere: bool) -> list[Tensor]:
    """Return masks that are True at the entries with the highest scores.

    Args:
        scores: One tensor per matrix.
        counts: Entries to keep of each.
        everywhere: Compare the scores of all matrices with one another, which keeps as many entries
            in all, but of each as many as its scores deserve.
    """
    if not everywhere:
        return [_highest(one, count) for one, count in zip(scores, counts, strict=True)]
    flat = torch.cat([one.flatten() for one in scores])
    sizes = [one.numel() for one in scores]
    parts = _highest(flat, sum(counts)).split_with_sizes(sizes)
    return [part.reshape(one.shape) for part, one in zip(parts, scores, strict=True)]


def _highest(scores: Tensor, count: int) -> Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(count).indices] = True
    return mask.reshape(scores.shape)


def snip_scores(weights: Sequence[Tensor], gradients: Gradients) -> list[Tensor]:
    """Return what the loss feels of each entry's mask.

    Args:
        weights: The matrices.
        gradients: Returns their gradients, summed over the batches that are looked at.
    """
    return [(w * g).abs() for w, g in zip(weights, gradients(), strict=True)]


def grasp_scores(weights: Sequence[Tensor], gradients: Gradients) -> list[Tensor]:
    """Return what the gradient's norm loses with each entry.

    The product of Hessian and gradient is a central difference of gradients, since few losses of
    sequences can be differentiated twice.

    Args:
        weights: The matrices; moved and put back bit for bit.
        gradients: Returns their gradients at their present values.
    """
    first = gradients()
    norm = _norm(first)
    if not norm:
        return [torch.zeros_like(one) for one in weights]
    size = _STEP * (_norm(weights) or 1.0) / norm
    starts = [one.clone() for one in weights]
    sides = []
    for way in (size, -size):
        for weight, start, gradient in zip(weights, starts, first, strict=True):
            weight.copy_(start + way * gradient)
        sides.append(gradients())
    for weight, start in zip(weights, starts, strict=True):
        weight.copy_(start)
    return [
        start * (above - below) / (2 * size)
        for start, above, below in zip(starts, *sides, strict=True)
    ]


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(one.double().square().sum()) for one in tensors))


def synflow_scores(weights: Sequence[Tensor]) -> list[Tensor] | None:
    """Return the share of each entry in the flow of ones through one adapter's matrices.

    Args:
        weights: The matrices in the order in which they are passed, seen as `[out, rest]`.

    Returns:
        The scores; None where the matrices do not follow one another.
    """
    sizes = [one.flatten(1).abs().double() for one in weights]
    flows = [torch.ones_like(sizes[0][0])]
    for one in sizes:
        if one.shape[1] != len(flows[-1]):
            return None
        flows.append(one @ flows[-1])
    back = torch.ones_like(flows[-1])
    scores: list[Tensor] = []
    for weight, one, flow in zip(reversed(weights), reversed(sizes), flows[-2::-1], strict=True):
        scores.append((one * back[:, None] * flow).reshape(weight.shape).to(weight.dtype))
        back = one.t() @ back
    return scores[::-1]


def densities(masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the share of entries kept at each site.

    Args:
        masks: By site and matrix, as `<role>:<matrix>`; True where kept.
    """
    found: dict[str, list[Tensor]] = {}
    for key, mask in masks.items():
        found.setdefault(key.partition(":")[0], []).append(mask)
    return {
        role: sum(int(one.sum()) for one in own) / sum(one.numel() for one in own)
        for role, own in found.items()
    }


def picture(shares: Mapping[str, float], path: Path, title: str) -> Path:
    """Draw the share of entries kept at each site: layers across, kinds of site down.

    Args:
        shares: By role, as `densities` returns them.
        path: Where to write, by its suffix as PNG, SVG or PDF.
        title: What stands above.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "a picture of densities") from error
    rows, columns = _grid(shares)
    values = [[shares.get(f"layer.{c}.{r}", math.nan) for c in columns] for r in rows]
    figure = Figure(figsize=(2 + 0.6 * len(columns), 1.2 + 0.4 * len(rows)), layout="constrained")
    axes: Any = figure.subplots()
    shown = axes.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                ink = "black" if value > 0.6 else "white"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=ink, size=8)
    axes.set_xlabel("layer")
    axes.set_title(title)
    figure.colorbar(shown, label="share of entries kept")
    figure.savefig(path, dpi=150)
    return path


def _grid(shares: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Return the kinds of site and the layers, in order."""
    rows: dict[str, None] = {}
    columns: dict[str, None] = {}
    for role in shares:
        first, _, place = role.partition(".")
        if first == "layer":
            layer, _, kind = place.partition(".")
            rows[kind] = columns[layer] = None
    return list(rows), list(columns)

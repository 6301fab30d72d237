"""The optimisers of the training loop: AdamW, or Muon for the matrices inside the layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.training.objective import Group

OptimizerName = Literal["adamw", "muon"]

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# Inside a numbered layer; adapters write the dots of a role as slashes (`sites.layer/0/ffn.down`).
_HIDDEN = re.compile(r"(^|[./])layers?[./]\d+[./]")


class Muon(torch.optim.AdamW):
    """Momentum with orthogonalised updates in groups marked `orthogonal`, AdamW in all others.

    The update of a matrix is the orthogonal factor of its Nesterov momentum, found by five
    Newton-Schulz steps, times `0.2 sqrt(max(rows, columns))`, which gives it the root mean square
    of a usual AdamW update; so one learning rate serves both kinds.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024);
    scale and decoupled decay of arXiv 2502.16982, section 2.2.
    Differs: iterates in the parameter's precision, because bfloat16 products are slow on many CPUs
    (`torch.optim.Muon` iterates in bfloat16), and takes convolutions as (out, rest) matrices.

    Args:
        groups: Parameter groups; those to orthogonalise carry `orthogonal: True`.
        lr: Learning rate.
        betas: Of AdamW.
        momentum: Of the orthogonalised groups.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.momentum = momentum

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; the orthogonalised ones lose theirs.

        Args:
            closure: As in `torch.optim.Optimizer.step`.
        """
        for group in self.param_groups:
            if group.get("orthogonal"):
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._orthogonal_step(parameter, group)
        result: float | None = super().step(closure)
        return result

    @torch.no_grad()
    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.tensor(0.0)  # AdamW asks for it when a checkpoint is restored
        gradient = parameter.grad
        assert gradient is not None
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        update = orthogonal_factor(gradient.lerp(average, self.momentum).flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = -group["lr"] * 0.2 * math.sqrt(max(update.shape))
        parameter.add_(update.view_as(parameter), alpha=size)
        parameter.grad = None  # AdamW passes over what has no gradient


def orthogonal_factor(
    matrix: Float[Tensor, "rows columns"], steps: int = 5
) -> Float[Tensor, "rows columns"]:
    """Return a matrix with the same singular vectors and singular values near 1.

    Args:
        matrix: Any matrix.
        steps: Newton-Schulz steps; five leave the singular values between about 0.7 and 1.2.
    """
    first, third, fifth = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    current = matrix.T if tall else matrix
    current = current / (current.norm() + 1e-7)
    for _ in range(steps):
        square = current @ current.T
        current = first * current + (third * square + fifth * square @ square) @ current
    result: Tensor = current.T if tall else current
    return result


def make_optimizer(
    module: nn.Module,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    groups: Mapping[str, Group] | None = None,
) -> torch.optim.Optimizer:
    """Return an optimiser of the trained parameters of a module.

    Every group carries the `factor` by which the loop multiplies the rate of a step.

    Args:
        module: Its parameters that require gradients are trained.
        name: `adamw`, or `muon` for the matrices inside numbered layers and AdamW for the rest.
        learning_rate: Peak rate; the loop sets the rate of each step.
        weight_decay: Decoupled; not applied to vectors (norms, biases).
        betas: Of AdamW.
        groups: Parts with another rate or decay, by the start of their parameters' names.
    """
    trained = [(title, p) for title, p in module.named_parameters() if p.requires_grad]
    made: list[dict[str, Any]] = []
    for group, members in _sorted_out(trained, groups or {}):
        decay = weight_decay if group.weight_decay is None else group.weight_decay
        for part in _by_shape(members, name, decay):
            made.append({**part, "factor": group.rate, "lr": learning_rate * group.rate})
    if name == "adamw":
        return torch.optim.AdamW(made, lr=learning_rate, betas=betas)
    return Muon(made, learning_rate, betas)


def clip_norms(module: nn.Module, apart: Sequence[str], most: float) -> float:
    """Clip the gradients of parts of a module, each by its own norm, and of the rest by one.

    Args:
        module: Its parameters may have gradients.
        apart: Starts of the names of the parts' parameters.
        most: Largest norm of each.

    Returns:
        The norm over all parameters before.
    """
    parts = _sorted_out(list(module.named_parameters()), {start: Group() for start in apart})
    norms = [
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in members], most)
        for _, members in parts
    ]
    return math.sqrt(sum(float(norm) ** 2 for norm in norms))


def _sorted_out(
    trained: Sequence[tuple[str, nn.Parameter]], groups: Mapping[str, Group]
) -> list[tuple[Group, list[tuple[str, nn.Parameter]]]]:
    """Return the parameters by their group, those of no group first."""
    starts = sorted(groups, key=len, reverse=True)
    members: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in ("", *groups)}
    for title, parameter in trained:
        start = next((start for start in starts if title.startswith(start)), "")
        members[start].append((title, parameter))
    return [(groups.get(start, Group()), found) for start, found in members.items() if found]


def _by_shape(
    members: Sequence[tuple[str, nn.Parameter]], name: OptimizerName, decay: float
) -> list[dict[str, Any]]:
    """Return the parameter groups of one part: matrices, then the vectors, which do not decay."""
    matrices = [(title, p) for title, p in members if p.ndim > 1]
    vectors = {"params": [p for _, p in members if p.ndim <= 1], "weight_decay": 0.0}
    if name == "muon":
        hidden = [p for title, p in matrices if _is_hidden(title, p)]
        others = [p for title, p in matrices if not _is_hidden(title, p)]
        parts = [
            {"params": hidden, "weight_decay": decay, "orthogonal": True},
            {"params": others, "weight_decay": decay},
            vectors,
        ]
    else:
        parts = [{"params": [p for _, p in matrices], "weight_decay": decay}, vectors]
    return [part for part in parts if part["params"]]


def _is_hidden(title: str, parameter: Tensor) -> bool:
    # One filter per channel is a stack of vectors, not a matrix.
    depthwise = parameter.ndim > 2 and parameter.shape[1] == 1
    return bool(_HIDDEN.search(title)) and not depthwise

"""Small parts that several adapter methods are made of: a bottleneck, how it starts and joins.

They know nothing of rows, files or how an adapter is attached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.branch import ActivationName as ActivationName
from speechadapt.adapters.branch import Branch, Reads
from speechadapt.core.errors import ConfigError, SiteError, near_misses
from speechadapt.core.shapes import Mask
from speechadapt.encoders.sites import Site

InitialName: TypeAlias = Literal["up_zero", "near_zero", "normal"]
OrderName: TypeAlias = Literal["sequential", "parallel"]

NEAR_ZERO_STD = 1e-3
NORMAL_STD = 0.02
_MOST_STDS = 2.0  # a truncated normal distribution is cut here


def activation(name: ActivationName) -> nn.Module:
    """Return a fresh activation by its name.

    Args:
        name: `gelu` is the exact form, `gelu_tanh` its approximation, `silu` also goes by the name
            of swish, `none` passes values on.

    Raises:
        ConfigError: There is none of that name; near misses are named.
    """
    made: dict[str, nn.Module] = {
        "relu": nn.ReLU(),
        "leaky_relu": nn.LeakyReLU(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "silu": nn.SiLU(),
        "tanh": nn.Tanh(),
        "none": nn.Identity(),
    }
    if name not in made:
        raise ConfigError(f"there is no activation '{name}'.{near_misses(name, made)}")
    return made[name]


def check_width(setting: str, value: int, width: int) -> None:
    """Refuse a bottleneck that is wider than its site, before any tensor is made.

    Args:
        setting: The setting's name, without the group it stands in.
        value: What was asked for.
        width: The site's width.

    Raises:
        ConfigError: `value` is below 1 or above `width`.
    """
    if not 1 <= value <= width:
        raise ConfigError(
            f"adapter.{setting} must be between 1 and {width} (the site's width), got {value}."
        )


def check_frames(site: Site, method: str) -> None:
    """Refuse a convolution, whose tensors are no frames, for a method that works on frames.

    Args:
        site: Where the adapter is to be.
        method: The method's name, for the message.

    Raises:
        SiteError: The site is a convolution.
    """
    if site.conv is not None or site.kind.startswith("Conv"):
        raise SiteError(
            f"adapter '{method}' works on frames, but '{site.role}' is a {site.kind}. Choose roles "
            "such as attn, ffn, conv or end."
        )


def check_square(site: Site, method: str, why: str) -> None:
    """Refuse a site that is not as wide where it writes as where it reads.

    Args:
        site: Where the adapter is to be.
        method: The method's name, for the message.
        why: What needs equal widths, for the message.

    Raises:
        SiteError: The widths differ.
    """
    if site.dim_in != site.dim_out:
        raise SiteError(
            f"adapter '{method}' {why}, but '{site.role}' reads {site.dim_in} values and writes "
            f"{site.dim_out}. Choose roles such as attn, ffn, conv or end."
        )


class Bottleneck(nn.Module):
    """Project down, bend, project up: `up(activation(down(dropout(norm(u)))))`.

    Args:
        dim_in: Width of the input.
        width: Width in between.
        dim_out: Width of the output.
        bend: Name of the activation.
        bias: Whether the two projections have biases.
        norm: Whether a layer norm of its own comes first.
        dropout: Share of the input's values set to zero in training.
        initial: How it starts, see `initialise`.
    """

    def __init__(
        self,
        dim_in: int,
        width: int,
        dim_out: int,
        bend: ActivationName = "relu",
        bias: bool = True,
        norm: bool = False,
        dropout: float = 0.0,
        initial: InitialName = "up_zero",
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim_in) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(dim_in, width, bias=bias)
        self.bend: ActivationName = bend
        self.activation = activation(bend)
        self.up = nn.Linear(width, dim_out, bias=bias)
        initialise(self.down, self.up, initial)

    def forward(
        self, states: Float[Tensor, "*positions dim_in"]
    ) -> Float[Tensor, "*positions dim_out"]:
        """Return what is to be added, one vector per position; positions do not mix."""
        bent = self.activation(self.down(self.dropout(self.norm(states))))
        added: Tensor = self.up(bent)
        return added

    def branch(self, reads: Reads, scale: float | Tensor = 1.0) -> Branch | None:
        """Return what it computes, taken apart; None while it drops values.

        Args:
            reads: What it is given.
            scale: What its output is multiplied by: one number, or one per channel.
        """
        if self.training and self.dropout.p:
            return None
        rows = scale[:, None] if isinstance(scale, Tensor) else scale
        bias = self.up.bias
        norm = self.norm if isinstance(self.norm, nn.LayerNorm) else None
        return Branch(
            reads,
            self.down.weight,
            rows * self.up.weight,
            self.bend,
            self.down.bias,
            None if bias is None else scale * bias,
            None if norm is None else (norm.weight, norm.bias),
            1e-5 if norm is None else norm.eps,
        )


def bottleneck_parameters(
    dim_in: int, width: int, dim_out: int, bias: bool = True, norm: bool = False
) -> int:
    """Count the parameters of a `Bottleneck`: weights, then biases, then the norm's gain and shift.

    Args:
        dim_in: Width of the input.
        width: Width in between.
        dim_out: Width of the output.
        bias: Whether the projections have biases.
        norm: Whether it has a norm of its own.
    """
    weights = width * (dim_in + dim_out)
    return weights + (width + dim_out) * bias + 2 * dim_in * norm


def initialise(
    down: nn.Linear | nn.Conv1d, up: nn.Linear | nn.Conv1d, initial: InitialName
) -> None:
    """Give two projections their first values; biases start at zero.

    One of the two must differ from zero, or neither ever gets a gradient.

    Args:
        down: The first projection.
        up: The second.
        initial: `up_zero`: `down` uniform within 1 / sqrt(fan in), `up` zero, so what is added is
            exactly zero at first (He et al. 2022). `near_zero`: both from a normal distribution of
            standard deviation 0.001 cut at two of it (Houlsby et al. 2019). `normal`: both normal
            with 0.02, as BERT's own layers.

    Raises:
        ConfigError: There is no start of that name.
    """
    known = get_args(InitialName)
    if initial not in known:
        raise ConfigError(f"there is no start '{initial}'.{near_misses(initial, known)}")
    weights = (down.weight, up.weight)
    if initial == "up_zero":
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
    elif initial == "near_zero":
        for weight in weights:
            most = _MOST_STDS * NEAR_ZERO_STD
            nn.init.trunc_normal_(weight, std=NEAR_ZERO_STD, a=-most, b=most)
    else:
        for weight in weights:
            nn.init.normal_(weight, std=NORMAL_STD)
    for bias in (down.bias, up.bias):
        if bias is not None:
            nn.init.zeros_(bias)


def join(
    branch: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch frames _"],
    y: Float[Tensor, "batch frames dim"],
    order: OrderName,
    residual: bool,
) -> Float[Tensor, "batch frames dim"]:
    """Put a branch after a sub-layer or beside it.

    Args:
        branch: What the adapter computes.
        x: Input of the sub-layer.
        y: Its output.
        order: `sequential` gives the branch `y`, `parallel` gives it `x`.
        residual: Whether the branch's input is added to what it returns.

    Returns:
        `y + branch(y)` or, without the residual, `branch(y)` alone, which stands in for the
        sub-layer; `y + branch(x) + x` or, without the residual, `y + branch(x)`.
    """
    if order == "sequential":
        return y + branch(y) if residual else branch(y)
    return y + branch(x) + x if residual else y + branch(x)


def zero_padding(
    states: Float[Tensor, "batch frames dim"], mask: Mask | None
) -> Float[Tensor, "batch frames dim"]:
    """Set the frames past a clip's end to zero, as a convolution sees them where a clip ends.

    Args:
        states: Frames.
        mask: True at valid frames; None leaves `states` alone.
    """
    return states if mask is None else states.masked_fill(~mask[:, :, None], 0.0)

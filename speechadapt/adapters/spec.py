"""What an adapter method is: a config, an adapter per site, and the hooks it needs.

A method lives in one file, `adapters/methods/<name>.py`, which publishes `METHOD`. An adapter holds
its own tensors alone: which rows it acts on, when it is active, how it is saved and merged is the
business of `attach`, `merge` and `store`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn

from speechadapt.adapters.branch import Branch
from speechadapt.adapters.passage import Passage
from speechadapt.adapters.prefix import Prefix
from speechadapt.core.shapes import Mask
from speechadapt.encoders.sites import Site

DEFAULT_RATE = 1e-3
Way: TypeAlias = Passage | Prefix  # how frames go through a span
BatchLoss: TypeAlias = Callable[[int], Tensor]  # of the training batch of a number


@dataclass(frozen=True)
class Context:
    """What an adapter may know beside the tensors at its site.

    Args:
        mask: True at the valid positions of the residual stream (`[batch, frames]`); None where the
            encoder masks no padding, and at the convolutions of a stem.
        conditions: Values by name (`task`, `language`, `memory`), one per row, that a method listed
            under `Method.needs`.
        kept: What adapters leave here for others at later sites of the same call and rows, by a
            name of their own.
        streams: How many rows that follow one another are streams of one row of the caller's; 1 in
            calls that pass the encoder by, which cannot repeat their rows.
    """

    mask: Mask | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)
    streams: int = 1


class Adapter(nn.Module):
    """The trainable part at one site.

    A subclass is constructed as `Adapter(site, config, shared)`; it may keep `shared`, whose
    tensors are saved and counted once for all sites. Tensors at a site are
    `[batch, frames, dim]`, at a convolution (`site.conv` set) `[batch, channels, time]`.

    Attributes:
        taps: Whether `x` is the residual stream before the norm (`site.tap`) instead of the input
            at the read point; may be set per instance.
    """

    taps: bool = False

    def enter(self, x: Tensor, context: Context) -> Tensor:
        """Change what goes into the read point; the default leaves it alone.

        Args:
            x: Input at the read point.
            context: What else is known.
        """
        return x

    def around(self, x: Tensor, context: Context) -> Way | None:
        """Choose the frames that go through the frozen modules of the span; None sends all.

        Of a `Passage` the others cost nothing there; `leave` is given all frames, with zero at
        those that did not go through. A `Prefix` sends positions ahead of all frames. The
        constructor asks `passage.check_part` or `prefix.check_prefix` whether the site allows it.

        Args:
            x: Input at the read point, as `enter` left it.
            context: What else is known.
        """
        return None

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Change what comes out of the write point; the default leaves it alone.

        Args:
            x: Input at the read point, as `enter` left it, or the residual stream where `taps`.
            y: Output at the write point, in the size it has when it meets the residual stream (a
                Conformer's factor of 0.5 already applied, and taken out again afterwards).
            context: What else is known.
        """
        return y

    def branch(self) -> Branch | None:
        """Return what `leave` adds to `y` as a branch; None where it does something else.

        Adapters that name their branch can run beside others of their kind as one product.
        """
        return None


@dataclass(frozen=True)
class WeightDelta:
    """What merging adds to a frozen module.

    Args:
        weight: Same shape as the module's weight.
        bias: Same shape as its bias; None adds nothing.
    """

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """An adapter method.

    Args:
        config: Frozen dataclass of its settings, JSON types only.
        adapter: Its adapter class.
        roles: Default role patterns; one that ends in `?` may match nothing (`conv.pw1?`).
        source: Paper and section.
        tiny: Settings small enough for the contract suite.
        parameters: Closed-form number of trainable parameters at one site, from site and settings.
        starts_as_identity: Whether attaching changes the encoder's output by nothing.
        shared: Makes the module that all sites of one attachment share.
        shared_parameters: Closed-form number of its trainable parameters.
        prepare: Called once after construction with the adapter and the frozen module at the
            write point, which it may read and must not change (a singular value decomposition).
            What it computes belongs in parameters or buffers, so that a saved file holds it.
        weight_delta: What merging adds to the frozen module at the site; None where the method
            does not merge. The site reads and writes the same module.
        penalty: An extra loss from the adapters of one attachment.
        after_step: Called with the adapters and the number of steps done, after each of them.
        figures: What is worth knowing of trained adapters, by name, for the report of a run.
        resolve: Returns the method that given settings mean, where roles, merging or the start hang
            on them (see `of`).
        begin: Called once before the first step, with the adapters and a function that returns the
            loss of the training batch of a number.
        held: How many of the adapters' parameters are held at zero and never trained.
        consistency: Weight of the disagreement of two passes over a batch, for tasks whose outputs
            are distributions.
        pack: What a file holds of an adapter, where that is less than its tensors.
        unpack: Fills an adapter from that; raises `CheckpointError` where it does not fit.
        streams: How many rows of the encoder's batch a row of the caller's becomes while it acts,
            from its settings (see `Context.streams`); what an adapter at `encoder` leaves in the
            first of them is what the caller gets. None leaves the rows alone.
        needs: Names of the conditions it reads.
        example: Returns such conditions for a number of rows of an encoder of some width.
        learning_rate: A peak rate that is a fair first guess.
        version: Raised whenever a saved file would be read differently.
    """

    config: type
    adapter: Callable[[Site, Any, nn.Module | None], Adapter]
    roles: tuple[str, ...]
    source: str
    tiny: Any
    parameters: Callable[[Site, Any], int]
    starts_as_identity: bool = True
    shared: Callable[[Sequence[Site], Any], nn.Module] | None = None
    shared_parameters: Callable[[Sequence[Site], Any], int] | None = None
    prepare: Callable[[Any, nn.Module], None] | None = None
    weight_delta: Callable[[Any, nn.Module], WeightDelta] | None = None
    penalty: Callable[[Sequence[Any]], Tensor] | None = None
    after_step: Callable[[Sequence[Any], int], None] | None = None
    figures: Callable[[Sequence[Any]], Mapping[str, float]] | None = None
    resolve: Callable[[Any], Method] | None = None
    begin: Callable[[Sequence[Any], BatchLoss], None] | None = None
    held: Callable[[Sequence[Any]], int] | None = None
    consistency: float = 0.0
    pack: Callable[[Any], dict[str, Tensor]] | None = None
    unpack: Callable[[Any, Mapping[str, Tensor]], None] | None = None
    streams: Callable[[Any], int] | None = None
    needs: frozenset[str] = frozenset()
    example: Callable[[int, int], Mapping[str, Any]] | None = None
    learning_rate: float = DEFAULT_RATE
    version: int = 1

    def of(self, config: Any) -> Method:
        """Return the method that settings mean.

        Args:
            config: Settings of this method.
        """
        return self if self.resolve is None else self.resolve(config)

    @property
    def merges(self) -> bool:
        """Whether the adapter can be folded into the frozen weights."""
        return self.weight_delta is not None

"""The shape of a masked-diffusion text network, as it stands in a model folder's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from speechadapt.core.bind import bind
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.limits import Count, CountOrNone, Probability

FrameCode = Literal["none", "time", "count"]
_LATER = ("streams", "prefix")  # folders written before these were thought of do not say them


@dataclass(frozen=True)
class DiffusionShape:
    """Shape of the network.

    Args:
        vocab_size: Tokens it can write. MASK comes after the last of them and is never written.
        dim: Width.
        layers: Number of layers.
        heads: Attention heads.
        feed_forward: Inner width of the feed-forwards.
        positions: Most tokens it takes, the start token included.
        condition_dim: Width of the encoder's frames; 0 makes a network of text alone.
        gate: What a new network does with the frames: `zero` adds nothing until the gates have
            learned, `none` adds random cross-attention at full strength.
        frame_code: What tells the network where a frame is: `none`, `time` (sinusoids of the
            frame's number are added to it) or `count` (rotary positions in cross-attention: of a
            token its place, of a frame the number of tokens that the length head expects up to it).
        length_head: Predict the number of tokens from the frames.
        dropout: On the output of every block while training.
        streams: Parallel streams of every candidate (see `streams`); 1 is the plain network.
        prefix: Learned keys and values of each stream in every self-attention; without a meaning
            where there is one stream.
    """

    vocab_size: Count = 512
    dim: Count = 192
    layers: Count = 4
    heads: Count = 4
    feed_forward: Count = 512
    positions: Count = 128
    condition_dim: CountOrNone = 0
    gate: Literal["zero", "none"] = "zero"
    frame_code: FrameCode = "count"
    length_head: bool = True
    dropout: Probability = 0.0
    streams: Count = 1
    prefix: Count = 48

    def __post_init__(self) -> None:
        if self.dim % (2 * self.heads):
            raise ConfigError(
                f"dim {self.dim} was asked for with {self.heads} heads; rotary positions need "
                f"an even width per head, so dim must be a multiple of {2 * self.heads}."
            )
        if self.hears and self.frame_code == "count" and not self.length_head:
            raise ConfigError("frame_code=count counts by the length head; set length_head=true.")
        if self.positions < 2:
            raise ConfigError(f"positions must be 2 or more, got {self.positions}.")

    @property
    def mask_id(self) -> int:
        """Id of MASK."""
        return self.vocab_size

    @property
    def hears(self) -> bool:
        """Whether the network takes an encoder's frames."""
        return self.condition_dim > 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def read_shape(config: Mapping[str, Any], owner: str) -> DiffusionShape:
    """Read the shape out of a `config.json`.

    Args:
        config: The file's object; keys that are no part of a shape are passed over.
        owner: Whose file it is, for messages.

    Raises:
        CheckpointError: A part is missing, or is of another type or out of range.
    """
    names = [one.name for one in fields(DiffusionShape)]
    missing = [name for name in names if name not in config and name not in _LATER]
    if missing:
        raise CheckpointError(f"config.json of '{owner}' does not say {', '.join(missing)}.")
    try:
        said = {name: config[name] for name in names if name in config}
        shape, problems = bind(DiffusionShape, said)
    except ConfigError as error:
        problems = [str(error)]
    if problems:
        raise CheckpointError(f"config.json of '{owner}' cannot be used: {' '.join(problems)}")
    return shape

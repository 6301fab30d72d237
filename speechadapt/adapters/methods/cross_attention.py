"""Attention to a memory beside self-attention: an enrolment recording, or words to listen for.

    y' = y + strength * W_o softmax(Q K^T / sqrt(d_k)) V       Q = W_q x, K = W_k c, V = W_v c

y is the frozen attention's output, x its input, c the tokens that the condition `memory` gives for
a row: `[tokens, width]` (`memory=frames`, see `adapters.memory`), or words (`memory=words`), of
which every letter with its neighbours is a token. W_o starts at zero, so nothing changes at first.
A token of value zero stands beside every memory, so that a frame may attend to nothing; a row
without a memory (None) is the base exactly, as is every row at strength 0. The condition `strength`
sets the strength row by row at inference. Keys and values of a memory are kept until it or a weight
changes.

Source: https://arxiv.org/abs/2407.01494 section 3 (semantic adapter)
Reference: https://github.com/open-mmlab/FoleyCrafter/tree/c2399fa/foleycrafter/models/adapters
Differs: the encoders have no cross-attention to stand in, so queries and output are maps of its
    own, narrow ones; the reference adds a second attention to one that is there, with its queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.blocks import check_frames
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import Count, CountOrNone, NotNegative
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

MEMORY = "memory"
STRENGTH = "strength"
_BYTES = 256
_NEIGHBOURS = 2  # letters on either side that one convolution sees

Row = Tensor | Sequence[str] | None


@dataclass(frozen=True)
class CrossAttentionConfig:
    """Settings of the attention to a memory.

    Args:
        memory: What a row's memory is: `frames`, or `words`.
        memory_dim: Width of the frames; 0 takes the encoder's own.
        layer: Layer whose output gives the frames of an enrolment, counted from 0; -1 the last.
        tokens: Most tokens that an enrolment is averaged to.
        token_width: Width of the tokens that all sites read.
        width: Width of queries, keys and values together.
        heads: Attention heads.
        strength: What the result is multiplied by where the condition `strength` says nothing.
    """

    memory: Literal["frames", "words"] = "frames"
    memory_dim: CountOrNone = 0
    layer: int = -1
    tokens: Count = 16
    token_width: Count = 128
    width: Count = 64
    heads: Count = 4
    strength: NotNegative = 1.0


class FrameTokens(nn.Module):
    """Frames of another recording as tokens: a linear map and a norm.

    Args:
        dim: Width of the frames.
        width: Width of the tokens.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, row: Row) -> Float[Tensor, "tokens width"]:
        """Return the tokens of one memory.

        Raises:
            ConfigError: It is no `[tokens, dim]`.
        """
        weight = self.map.weight
        if not isinstance(row, Tensor) or row.ndim != 2 or row.shape[1] != weight.shape[1]:
            found = list(row.shape) if isinstance(row, Tensor) else type(row).__name__
            raise ConfigError(
                f"the condition '{MEMORY}' must be [tokens, {weight.shape[1]}] for each row, got "
                f"{found}. Make it with adapters.memory.remember, or set adapter.memory=words."
            )
        tokens: Tensor = self.norm(self.map(row.to(weight.device, weight.dtype)))
        return tokens


class WordTokens(nn.Module):
    """Words as tokens, one for each byte of UTF-8 with its neighbours.

    Args:
        width: Width of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(_BYTES, width)
        size, around = 2 * _NEIGHBOURS + 1, _NEIGHBOURS
        self.near = nn.Conv1d(width, width, size, padding=around)
        self.far = nn.Conv1d(width, width, size, padding=around)
        self.norm = nn.LayerNorm(width)

    def forward(self, row: Row) -> Float[Tensor, "tokens width"]:
        """Return the tokens of one list of words.

        Raises:
            ConfigError: It is no list of words.
        """
        if row is None or isinstance(row, str | Tensor):
            raise ConfigError(
                f"the condition '{MEMORY}' must be a list of words for each row, got "
                f"{type(row).__name__}. Or set adapter.memory=frames."
            )
        found = [self._word(word) for word in row if word]
        weight = self.norm.weight
        return torch.cat(found) if found else weight.new_zeros(0, len(weight))

    def _word(self, word: str) -> Tensor:
        codes = torch.tensor(list(word.encode()), device=self.norm.weight.device)
        inner = self.letters(codes).t()[None]
        inner = inner + self.far(functional.gelu(self.near(inner)))
        tokens: Tensor = self.norm(inner[0].t())
        return tokens


class Tokens(nn.Module):
    """What all sites share: the tokens of each row's memory.

    Args:
        sites: All sites of the attachment.
        config: Its settings.
    """

    def __init__(self, sites: Sequence[Site], config: CrossAttentionConfig) -> None:
        super().__init__()
        dim = config.memory_dim or sites[0].dim_in
        width = config.token_width
        self.read = FrameTokens(dim, width) if config.memory == "frames" else WordTokens(width)
        self.width = width

    def forward(
        self, rows: Sequence[Row]
    ) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"]]:
        """Return the tokens of the rows, and which of them are there.

        A memory that several rows share is read once.

        Args:
            rows: One memory for each row; None gives no token.
        """
        like = next(self.parameters())
        nothing = like.new_zeros(0, self.width)
        different = {id(row): row for row in rows if row is not None}
        once = {key: self.read(row) for key, row in different.items()}
        found = [nothing if row is None else once[id(row)] for row in rows]
        lengths = torch.tensor([len(one) for one in found], device=like.device)
        tokens = nn.utils.rnn.pad_sequence(found, batch_first=True)
        return tokens, torch.arange(tokens.shape[1], device=like.device) < lengths[:, None]


@dataclass(frozen=True)
class Kept:
    """Keys and values of the memories of a batch.

    Args:
        rows: The memories, which are kept so that no others can take their identity.
        state: Versions of all tensors they were made from.
        keys: `[batch, heads, tokens, width]`.
        values: Likewise.
        mask: `[batch, 1, 1, tokens]`, True where a token is there.
    """

    rows: tuple[Row, ...]
    state: object
    keys: Tensor
    values: Tensor
    mask: Tensor


class CrossAttentionAdapter(Adapter):
    """The attention to the memory beside one self-attention.

    Args:
        site: An attention, or another sub-layer.
        config: Its settings.
        shared: Makes the tokens.

    Raises:
        SiteError: The site is a convolution.
        ConfigError: The width is no multiple of the heads.
    """

    def __init__(
        self, site: Site, config: CrossAttentionConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "cross_attention")
        if config.width % config.heads:
            raise ConfigError(
                f"adapter.width={config.width} must be a multiple of adapter.heads={config.heads}."
            )
        assert isinstance(shared, Tokens)
        self.tokens = shared
        self.heads, self.strength = config.heads, config.strength
        width = config.width
        self.query = nn.Linear(site.dim_in, width, bias=False)
        self.key = nn.Linear(config.token_width, width, bias=False)
        self.value = nn.Linear(config.token_width, width, bias=False)
        self.out = nn.Linear(width, site.dim_out, bias=False)
        self.nothing = nn.Parameter(torch.zeros(width))
        nn.init.zeros_(self.out.weight)
        self._kept: Kept | None = None

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Add what the frames find in their row's memory.

        Args:
            x: Input of the self-attention.
            y: Its output.
            context: Holds the condition `memory`, one for each row, and `strength` where it is set.

        Raises:
            ConfigError: A condition does not fit the rows.
        """
        rows = tuple(context.conditions[MEMORY])
        if len(rows) != len(x):
            raise ConfigError(
                f"the condition '{MEMORY}' has {len(rows)} entries for {len(x)} rows. "
                "Give one entry per row."
            )
        kept = self._remembered(rows)
        query = self._split(self.query(x))
        found = functional.scaled_dot_product_attention(
            query, kept.keys.to(query.dtype), kept.values.to(query.dtype), kept.mask
        )
        added = self.out(found.transpose(1, 2).flatten(2))
        strength = context.conditions.get(STRENGTH)
        if strength is None:
            return torch.add(y, added, alpha=self.strength)
        factors = torch.as_tensor([float(one) for one in strength], device=y.device)
        return torch.addcmul(y, factors[:, None, None].to(added.dtype), added)

    def _remembered(self, rows: tuple[Row, ...]) -> Kept:
        """Return keys and values, those of the last call where they still hold."""
        if torch.is_grad_enabled():
            return self._made(rows, None)
        state = self._state(rows)
        kept = self._kept
        same = kept is not None and len(kept.rows) == len(rows) and kept.state == state
        if (
            kept is None
            or not same
            or any(a is not b for a, b in zip(kept.rows, rows, strict=True))
        ):
            kept = self._kept = self._made(rows, state)
        return kept

    def _state(self, rows: tuple[Row, ...]) -> object:
        tensors: list[Tensor] = [*self.parameters(), *self.tokens.parameters()]
        tensors += [row for row in rows if isinstance(row, Tensor)]
        versions = [(one.data_ptr(), -1 if one.is_inference() else one._version) for one in tensors]
        words = [None if isinstance(row, Tensor) or row is None else tuple(row) for row in rows]
        autocast = torch.is_autocast_enabled(tensors[0].device.type)
        return versions, words, torch.is_inference_mode_enabled(), autocast

    def _made(self, rows: tuple[Row, ...], state: object) -> Kept:
        tokens, mask = self.tokens(rows)
        keys, values = self.key(tokens), self.value(tokens)
        nothing = self.nothing.to(keys.dtype).expand(len(rows), 1, -1)
        keys = torch.cat([nothing, keys], dim=1)
        values = functional.pad(values, (0, 0, 1, 0))
        there = functional.pad(mask, (1, 0), value=True)[:, None, None]
        return Kept(rows, state, self._split(keys), self._split(values), there)

    def _split(self, states: Tensor) -> Tensor:
        heads: Tensor = states.reshape(*states.shape[:-1], self.heads, -1)
        return heads.transpose(1, 2)


def shared_parameters(sites: Sequence[Site], config: CrossAttentionConfig) -> int:
    """Count the map and the norm of frames, or the letters, two convolutions and the norm."""
    width = config.token_width
    if config.memory == "frames":
        return width * ((config.memory_dim or sites[0].dim_in) + 1) + 2 * width
    size = 2 * _NEIGHBOURS + 1
    return _BYTES * width + 2 * (size * width * width + width) + 2 * width


def parameters(site: Site, config: CrossAttentionConfig) -> int:
    """Count queries, keys, values, output, and the key of the token that stands for nothing."""
    maps = site.dim_in + 2 * config.token_width + site.dim_out
    return config.width * (maps + 1)


def example(rows: int, dim: int) -> dict[str, Any]:
    """Return small memories as wide as the encoder, each of its own length."""
    generator = torch.Generator().manual_seed(0)
    return {MEMORY: [torch.randn(2 + row, dim, generator=generator) for row in range(rows)]}


METHOD = Method(
    config=CrossAttentionConfig,
    adapter=CrossAttentionAdapter,
    roles=("attn",),
    source="https://arxiv.org/abs/2407.01494 section 3",
    tiny=CrossAttentionConfig(token_width=8, width=8, heads=2),
    parameters=parameters,
    shared=Tokens,
    shared_parameters=shared_parameters,
    needs=frozenset({MEMORY}),
    example=example,
)

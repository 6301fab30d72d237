"""A bidirectional pre-norm transformer over masked text, with cross-attention to audio frames.

RMSNorm, SwiGLU, rotary positions, no biases, no time input: the share of MASK tells the network how
far it is. In every layer cross-attention stands between self-attention and feed-forward.

Source: the network of SMDM (arXiv 2410.18514), cross-attention in every layer as in Whisfusion
(arXiv 2508.07048).
Differs: a zero-initialised gate on the cross-attention, so that a new network writes what the text
network writes; a mask over padded frames; frames of any width. Keys and values of the frames are
computed once per utterance (`DiffusionNetwork.condition`), and the candidates of an utterance
share them. With several streams the network is that of `streams`; one is the plain network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.errors import ShapeError
from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.decoders.masked_diffusion.length import LengthHead
from speechadapt.decoders.masked_diffusion.rotary import Rotation, rotary, rotate, time_code
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.streams import Prefix, Streams

_EPSILON = 1e-5

Candidates = Int[Tensor, "utterances candidates positions"]
States = Float[Tensor, "utterances candidates positions dim"]
KeysOrValues = Float[Tensor, "utterances heads frames head_dim"]


@dataclass(frozen=True)
class Condition:
    """What the network has heard: every layer's keys and values of an utterance's frames.

    Args:
        keys: One tensor per layer.
        values: One tensor per layer.
        mask: True where a frame is valid.
    """

    keys: tuple[KeysOrValues, ...]
    values: tuple[KeysOrValues, ...]
    mask: Bool[Tensor, "utterances frames"]

    def select(self, rows: Sequence[int]) -> Condition:
        """Return the condition of some utterances."""
        chosen = torch.tensor(list(rows), device=self.mask.device)
        return Condition(
            tuple(one[chosen] for one in self.keys),
            tuple(one[chosen] for one in self.values),
            self.mask[chosen],
        )


class SelfAttention(nn.Module):
    """Attention of every position to every valid one, with rotary positions.

    Args:
        shape: The network's shape.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "rows positions dim"],
        rotation: Rotation,
        mask: Bool[Tensor, "rows 1 1 keys"] | None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "rows positions dim"]:
        """Attend.

        Args:
            x: Normalised states.
            rotation: Cosines and sines of the positions.
            mask: True where a key is valid, those of the prefix first; None where all are.
            prefix: Keys and values ahead of those of the positions, which are not turned.
        """
        rows, positions, dim = x.shape
        query, key, value = (
            part.view(rows, positions, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).split(dim, dim=-1)
        )
        query, key = rotate(query, rotation), rotate(key, rotation)
        if prefix is not None:
            key = torch.cat([prefix[0].to(key.dtype), key], dim=2)
            value = torch.cat([prefix[1].to(value.dtype), value], dim=2)
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed: Tensor = self.out(heard.transpose(1, 2).reshape(rows, positions, dim))
        return mixed


class CrossAttention(nn.Module):
    """Attention of every position to the frames of its utterance, through a gate per channel.

    Args:
        shape: The network's shape.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.counts = shape.frame_code == "count"
        self.q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.kv = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(shape.dim)) if shape.gate == "zero" else None

    def hear(
        self, frames: Frames, reached: Float[Tensor, "batch frames"] | None
    ) -> tuple[KeysOrValues, KeysOrValues]:
        """Return keys and values.

        Args:
            frames: Of the network's width.
            reached: Tokens expected up to each frame, where keys are turned by it.
        """
        rows, count, dim = frames.shape
        key, value = (
            part.view(rows, count, self.heads, -1).transpose(1, 2)
            for part in self.kv(frames).split(dim, dim=-1)
        )
        if reached is not None:
            # the token of place 1 is the first one, so its middle is half a token in
            key = rotate(key, rotary(reached[:, None] + 0.5, key.shape[-1]))
        return key, value

    def queries(self, x: States) -> Float[Tensor, "utterances heads places head_dim"]:
        """Return the queries of all candidates of an utterance in one row."""
        utterances, candidates, positions, _ = x.shape
        query: Tensor = self.q(x).view(utterances, candidates * positions, self.heads, -1)
        query = query.transpose(1, 2)
        if not self.counts:
            return query
        places = torch.arange(positions, device=x.device).repeat(candidates)
        return rotate(query, rotary(places, query.shape[-1]))

    def forward(
        self,
        x: States,
        keys: KeysOrValues,
        values: KeysOrValues,
        mask: Bool[Tensor, "utterances 1 1 frames"],
    ) -> States:
        """Attend.

        Args:
            x: Normalised states.
            keys: Of the frames.
            values: Of the frames.
            mask: True where a frame is valid.
        """
        heard = functional.scaled_dot_product_attention(
            self.queries(x), keys, values, attn_mask=mask
        )
        mixed: Tensor = self.out(heard.transpose(1, 2).reshape(x.shape))
        return mixed if self.gate is None else mixed * self.gate


class FeedForward(nn.Module):
    """SwiGLU.

    Args:
        shape: The network's shape.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.dim, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.dim, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.dim, bias=False)

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
        """Map each state by itself."""
        mapped: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return mapped


class Layer(nn.Module):
    """Self-attention, cross-attention where there is audio, feed-forward; each on a normed copy.

    Args:
        shape: The network's shape.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(shape.dim, _EPSILON)
        self.attention = SelfAttention(shape)
        self.norm_cross = nn.RMSNorm(shape.dim, _EPSILON) if shape.hears else None
        self.cross = CrossAttention(shape) if shape.hears else None
        self.norm_feed_forward = nn.RMSNorm(shape.dim, _EPSILON)
        self.feed_forward = FeedForward(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def attend(
        self,
        x: States,
        rotation: Rotation,
        mask: Bool[Tensor, "rows 1 1 keys"] | None,
        prefix: Prefix | None = None,
    ) -> States:
        """Return the states after self-attention, every candidate by itself."""
        mixed = self.attention(self.norm_attention(x).flatten(0, 1), rotation, mask, prefix)
        attended: Tensor = x + self.dropout(mixed.view(x.shape))
        return attended

    def forward(
        self,
        x: States,
        rotation: Rotation,
        mask: Bool[Tensor, "rows 1 1 keys"] | None,
        heard: tuple[KeysOrValues, KeysOrValues, Bool[Tensor, "utterances 1 1 frames"]] | None,
        prefix: Prefix | None = None,
    ) -> States:
        """Apply the layer.

        Args:
            x: Residual stream.
            rotation: Cosines and sines of the positions.
            mask: True where a key is valid, a row for each candidate; None where all are.
            heard: Keys, values and mask of the frames; None leaves cross-attention out.
            prefix: Of the self-attention, a row for each candidate.
        """
        x = self.attend(x, rotation, mask, prefix)
        if heard is not None and self.cross is not None and self.norm_cross is not None:
            x = x + self.dropout(self.cross(self.norm_cross(x), *heard))
        changed: Tensor = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return changed


class DiffusionNetwork(nn.Module):
    """Predicts the tokens under MASK from the visible ones and from an encoder's frames.

    Args:
        shape: Its shape.
    """

    def __init__(self, shape: DiffusionShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size + 1, shape.dim)
        self.bridge = _bridge(shape)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dim, _EPSILON)
        self.head = nn.Linear(shape.dim, shape.vocab_size, bias=False)
        self.length_head = (
            LengthHead(shape.condition_dim, shape.positions - 1)
            if shape.hears and shape.length_head
            else None
        )
        self.streams = Streams(shape) if shape.streams > 1 else None
        self._initialise()

    def condition(self, frames: Frames, lengths: Lengths) -> Condition:
        """Compute every layer's keys and values of a batch of frames, once for all steps.

        Frames past the longest row's end are left out.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row, at least one each.

        Raises:
            ShapeError: The frames are of another width, or the network takes none.
        """
        if not self.shape.hears or frames.shape[-1] != self.shape.condition_dim:
            raise ShapeError(
                f"frames of width {frames.shape[-1]} were given to a network for "
                f"{self.shape.condition_dim or 'text alone'}."
            )
        frames = frames[:, : int(lengths.max())]
        coded, reached = frames, None
        if self.shape.frame_code == "time":
            code = time_code(frames.shape[1], frames.shape[2], frames.device)
            coded = frames + code.to(frames.dtype)
        elif self.shape.frame_code == "count" and self.length_head is not None:
            reached = self.length_head.reached(frames, lengths)
        wide = coded if self.bridge is None else self.bridge(coded)
        heard = [
            layer.cross.hear(wide, reached) for layer in self._layers() if layer.cross is not None
        ]
        return Condition(
            tuple(key for key, _ in heard),
            tuple(value for _, value in heard),
            length_mask(lengths, frames.shape[1]),
        )

    def forward(
        self,
        tokens: Candidates,
        lengths: Int[Tensor, " utterances"] | None = None,
        condition: Condition | None = None,
    ) -> States:
        """Compute the final states; `head` makes logits of them, where they are wanted.

        Args:
            tokens: Token ids, MASK where unknown.
            lengths: Valid positions per utterance; None means all.
            condition: What was heard; None leaves cross-attention out.

        Raises:
            ShapeError: There are more tokens than positions.
        """
        positions = tokens.shape[2]
        if positions > self.shape.positions:
            raise ShapeError(
                f"{positions} tokens were given to a network of {self.shape.positions} positions."
            )
        x = self._enter(tokens)
        rotation = rotary(torch.arange(positions, device=x.device), self._head_dim)
        mask = None
        if lengths is not None and bool((lengths < positions).any()):
            mask = length_mask(lengths.repeat_interleave(x.shape[1]), positions)[:, None, None]
            if self.streams is not None:
                mask = functional.pad(mask, (self.shape.prefix, 0), value=True)
        for number, layer in enumerate(self._layers()):
            heard = None
            if condition is not None:
                frames = condition.mask[:, None, None]
                heard = (condition.keys[number], condition.values[number], frames)
            x = layer(x, rotation, mask, heard, self._prefix(number, x))
        states: Tensor = self.norm(x)
        return states if self.streams is None else self.streams.join(states)

    def attention_scores(
        self, tokens: Int[Tensor, " positions"], condition: Condition
    ) -> Float[Tensor, "heads positions frames"]:
        """Return where the upper half of the layers look, before the softmax, for one utterance.

        Heads are those of all these layers and of all streams.

        Args:
            tokens: Token ids without MASK.
            condition: What was heard of that utterance alone.
        """
        x = self._enter(tokens[None, None])
        rotation = rotary(torch.arange(len(tokens), device=x.device), self._head_dim)
        frames = condition.mask[:, None, None]
        scores: list[Tensor] = []
        for number, layer in enumerate(self._layers()):
            keys, prefix = condition.keys[number], self._prefix(number, x)
            if number >= self.shape.layers // 2 and layer.cross is not None:
                assert layer.norm_cross is not None
                attended = layer.attend(x, rotation, None, prefix)
                query = layer.cross.queries(layer.norm_cross(attended))
                found = (query @ keys.transpose(2, 3))[0] / math.sqrt(query.shape[-1])
                scores.append(found.reshape(-1, len(tokens), found.shape[-1]))
            x = layer(x, rotation, None, (keys, condition.values[number], frames), prefix)
        return torch.cat(scores)

    def _enter(self, tokens: Candidates) -> Float[Tensor, "utterances wide positions dim"]:
        x: Tensor = self.embed(tokens)
        return x if self.streams is None else self.streams.split(x)

    def _prefix(self, number: int, x: States) -> Prefix | None:
        rows = x.shape[0] * x.shape[1]
        return None if self.streams is None else self.streams.prefix(number, rows)

    @property
    def _head_dim(self) -> int:
        return self.shape.dim // self.shape.heads

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _initialise(self) -> None:
        deviation = math.sqrt(2 / (5 * self.shape.dim))
        depth = math.sqrt(2 * self.shape.layers)
        plain = self.shape.gate == "none"
        for name, part in self.named_modules():
            if name.startswith(("length_head", "streams")) or (plain and ".cross." in name):
                continue  # these keep torch's own initialisation
            if isinstance(part, nn.Linear | nn.Embedding):
                last = name.endswith(("attention.out", "feed_forward.down"))
                nn.init.normal_(part.weight, std=deviation / depth if last else deviation)


def _bridge(shape: DiffusionShape) -> nn.Module | None:
    if not shape.hears or shape.condition_dim == shape.dim:
        return None
    return nn.Sequential(
        nn.Linear(shape.condition_dim, shape.dim, bias=False), nn.RMSNorm(shape.dim, _EPSILON)
    )

"""A second self-attention over the channels of a recording, at each moment of its own.

    y' = y + strength * W_o softmax(Q K^T / sqrt(d_k)) V      Q = W_q x, K = W_k x, V = W_v x

Queries of a frame meet the keys of all microphones at the same time. W_q, W_k and W_v start as
copies of the frozen maps, W_o at zero. Rows of a batch that the condition `recording` gives one
name are channels of one recording; a row that has no other is the base exactly, trained or not, so
recordings of one channel need no other model.

Source: https://arxiv.org/abs/2412.03632 section 3.2
Reference: https://github.com/huanngzh/MV-Adapter/blob/4277e00/mvadapter/models/attention_processor.py
Differs: keys are at the same frame of all channels, where the reference's are of the same image row
    in all views; the copied keys have no bias, which would change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.second_attention import (
    RECORDING,
    ROLES,
    CopiedMap,
    Heads,
    Meeting,
    SecondAttention,
    copy_frozen,
    first_rows,
    map_parameters,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import NotNegative
from speechadapt.core.shapes import Frames, Mask
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class ChannelAttentionConfig:
    """Settings of the attention over channels.

    Args:
        strength: What its result is multiplied by.
    """

    strength: NotNegative = 1.0


class ChannelAttention(SecondAttention):
    """The attention over channels in one layer."""

    def attend(self, found: Heads, y: Frames, context: Context) -> Frames:
        """Return `y` with what the channels of a recording find in one another."""
        first = first_rows(context, len(y))
        count = Counter(first)
        rows = [row for row, number in enumerate(first) if count[number] > 1]
        if not rows:
            return y
        index = torch.tensor(rows, device=y.device)
        some = found.rows(index)
        mask = None if context.mask is None else context.mask.index_select(0, index)
        meet = _meet(torch.tensor([first[row] for row in rows], device=y.device), mask)
        # [frames, heads, channels, width]: time is the batch, channels are the sequence
        query, key, value = (one.permute(2, 1, 0, 3) for one in (some.query, some.key, some.value))
        states = functional.scaled_dot_product_attention(query, key, value, attn_mask=meet)
        return y.index_add(0, index, self.added(states.permute(2, 1, 0, 3)).to(y.dtype))


def _meet(numbers: Tensor, mask: Mask | None) -> Bool[Tensor, "#frames 1 channels channels"]:
    """Return which channels a channel attends to: those of its recording, where they have sound."""
    same = (numbers[:, None] == numbers[None])[None, None]
    if mask is None:
        return same
    own = torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
    return same & mask.t()[:, None, None, :] | own


def _adapter(site: Site, config: ChannelAttentionConfig, shared: nn.Module | None) -> Adapter:
    assert isinstance(shared, Meeting)
    if site.role.endswith(".out"):
        return ChannelAttention(site, shared, config.strength)
    return CopiedMap(site, shared)


def _shared(sites: Sequence[Site], config: ChannelAttentionConfig) -> Meeting:
    return Meeting(sites, "channel_attention")


def _count(site: Site, config: ChannelAttentionConfig) -> int:
    return map_parameters(site)


def example(rows: int, dim: int) -> Mapping[str, Any]:
    """Return recordings of two channels: every other row."""
    return {RECORDING: ["ab"[row % 2] for row in range(rows)]}


METHOD = Method(
    config=ChannelAttentionConfig,
    adapter=_adapter,
    roles=ROLES,
    source="https://arxiv.org/abs/2412.03632 section 3.2",
    tiny=ChannelAttentionConfig(),
    parameters=_count,
    shared=_shared,
    prepare=copy_frozen,
    example=example,
    learning_rate=1e-4,
)

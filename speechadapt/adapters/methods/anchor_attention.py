"""Attention of each chunk to an anchor chunk of its recording, by the frozen keys and values.

    y' = y + strength * W_o softmax(Q K_anchor^T / sqrt(d_k)) V_anchor      Q = W_q x

K and V are what the frozen maps make of the anchor in the same layer; only W_q, which starts as a
copy of the frozen one, and W_o, which starts at zero, are new. The anchor is the first row that the
condition `recording` gives the same name: the first chunk of a long recording, an enrolment, a near
microphone. It attends to itself, as does a row without a name.

Source: https://arxiv.org/abs/2312.16693 section 3.2
Reference: https://github.com/KwaiVGI/I2V-Adapter/blob/9a6c3fc/models/attention.py
    (MixedCausalAttention2D)
Differs: the anchor can be remembered from one call to the next (`adapters.anchors`). An encoder's
    relative positions are left out between chunks, which have no common clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.adapters.anchors import Anchors
from speechadapt.adapters.second_attention import (
    RECORDING,
    ROLES,
    CopiedMap,
    FrozenMap,
    Heads,
    SecondAttention,
    copy_frozen,
    first_rows,
    map_parameters,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import NotNegative
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class AnchorAttentionConfig:
    """Settings of the attention to an anchor.

    Args:
        strength: What its result is multiplied by.
    """

    strength: NotNegative = 1.0


class AnchorAttention(SecondAttention):
    """The attention to the anchor in one layer."""

    def attend(self, found: Heads, y: Frames, context: Context) -> Frames:
        """Return `y` with what each chunk finds in its anchor."""
        assert isinstance(self.meeting, Anchors)
        first = first_rows(context, len(y))
        key, value, mask = found.key, found.value, context.mask
        if self.meeting.remembers:
            names = context.conditions.get(RECORDING)
            key, value, mask = self.meeting.recall(self.role, names, key, value, mask)
        elif first != list(range(len(y))):
            index = torch.tensor(first, device=y.device)
            key, value = key.index_select(0, index), value.index_select(0, index)
            mask = None if mask is None else mask.index_select(0, index)
        meet: Tensor | None = None if mask is None else mask[:, None, None]
        states = functional.scaled_dot_product_attention(found.query, key, value, attn_mask=meet)
        return y + self.added(states)


def _adapter(site: Site, config: AnchorAttentionConfig, shared: nn.Module | None) -> Adapter:
    assert isinstance(shared, Anchors)
    if site.role.endswith(".out"):
        return AnchorAttention(site, shared, config.strength)
    return CopiedMap(site, shared) if site.role.endswith(".q") else FrozenMap(site, shared)


def _shared(sites: Sequence[Site], config: AnchorAttentionConfig) -> Anchors:
    return Anchors(sites, "anchor_attention")


def _count(site: Site, config: AnchorAttentionConfig) -> int:
    return map_parameters(site) if site.role.endswith((".q", ".out")) else 0


def example(rows: int, dim: int) -> Mapping[str, Any]:
    """Return recordings of two chunks: every other row."""
    return {RECORDING: ["ab"[row % 2] for row in range(rows)]}


METHOD = Method(
    config=AnchorAttentionConfig,
    adapter=_adapter,
    roles=ROLES,
    source="https://arxiv.org/abs/2312.16693 section 3.2",
    tiny=AnchorAttentionConfig(),
    parameters=_count,
    shared=_shared,
    prepare=copy_frozen,
    example=example,
    learning_rate=1e-4,
)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import active
from speechadapt.adapters.interop import adapterhub_fusion
from speechadapt.adapters.interop.foreign import install
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import CheckpointError
from tests.adapterhub_golden import GOLDEN, base, frames, golden


def test_fusion_is_read_into_parts_that_give_the_golden_frames() -> None:
    encoder = base()
    parts = adapterhub_fusion.read(GOLDEN / "fusion", encoder, encoder_only=True)
    assert parts.names == ("first", "second")
    handles = [install(encoder, parts.adapters[name], name, activate=False) for name in parts.names]

    def fused(role: str) -> Any:
        adapters = [handle.module.by_role()[role] for handle in handles]
        parts_of = ("query.weight", "query.bias", "key.weight", "key.bias", "value.weight")
        stored = {part: parts.tensors[f"{role}:{part}"] for part in parts_of}
        bottlenecks = [adapter.bottleneck for adapter in adapters]

        def leave(x: Tensor, y: Tensor, context: Context) -> Tensor:
            added = torch.stack([one(x + y) for one in bottlenecks], dim=2)
            weights = {part: value.to(y) for part, value in stored.items()}
            query = (x + y) @ weights["query.weight"].T + weights["query.bias"]
            key = added @ weights["key.weight"].T + weights["key.bias"]
            shares = (query[:, :, None] * key).sum(-1).softmax(-1)
            return y + (shares[..., None] * (added @ weights["value.weight"].T)).sum(2)

        return leave

    first = handles[0].module.by_role()
    for role in first:
        first[role].leave = fused(role)  # type: ignore[method-assign]
    with active(encoder, "first"):
        assert (frames(encoder) - golden("fusion")).abs().max() <= 1e-6


def test_fusion_folder_itself_and_a_setup_without_one(tmp_path: Path) -> None:
    encoder = base()
    inner = adapterhub_fusion.read(GOLDEN / "fusion" / "first,second", encoder, encoder_only=True)
    assert sorted(inner.adapters) == ["first", "second"]
    (tmp_path / "adapter_setup.json").write_text('{"adapter_setup": {"type": "Stack"}}')
    with pytest.raises(CheckpointError, match=r"a setup of type 'Stack' with 0 fusions"):
        adapterhub_fusion.read(tmp_path, encoder)

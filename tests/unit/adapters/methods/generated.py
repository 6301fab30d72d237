"""What the tests of methods that generate their adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.encoders.sites import Site


def fill(network: nn.Module, method: Method, sites: Sequence[Site], config: Any) -> None:
    """Give a generating network random tensors; their count must be the method's closed form."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    assert method.shared_parameters is not None
    count = sum(one.numel() for one in network.parameters())
    assert count == method.shared_parameters(sites, config)


def check_each_utterance_has_its_own(adapter: Adapter, x: Tensor, y: Tensor, close: float) -> None:
    """Show that a row's adapter comes from its own valid frames and from nothing else.

    Args:
        adapter: Generated from what it adapts.
        x: Input of its site, three rows of five frames.
        y: Output of its site, of the same shape.
        close: Largest difference allowed, absolute and relative.
    """
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    found = adapter.leave(x, y, Context(mask))
    alone = adapter.leave(x[1:2, :3], y[1:2, :3], Context())
    torch.testing.assert_close(found[1, :3], alone[0], rtol=close, atol=close)

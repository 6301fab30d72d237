from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from speechadapt.core.errors import ConfigError
from tests.toy_objective import Regression


@pytest.mark.parametrize(
    ("task", "layer"),
    [("ctc", "Wav2Vec2BertEncoderLayer"), ("seq2seq", "WhisperEncoderLayer")],
)
def test_recomputed_activations_change_no_gradient(
    build: Callable[..., Any], task: str, layer: str
) -> None:
    objective = build(task)
    objective.train()
    batch = objective.batch(0, 0)

    def gradients() -> tuple[int, list[torch.Tensor]]:
        calls: list[nn.Module] = []
        found = [part for part in objective.modules() if type(part).__name__ == layer]
        # A hook on an inner part: recomputing runs the layer's forward again.
        hooks = [next(iter(part.children())).register_forward_hook(
            lambda module, *_: calls.append(module)) for part in found]  # fmt: skip
        objective.zero_grad()
        torch.manual_seed(0)
        loss, _ = objective(batch)
        loss.backward()
        for hook in hooks:
            hook.remove()
        kept = [part.grad.clone() for part in objective.parameters() if part.grad is not None]
        return len(calls), kept

    plain_calls, plain = gradients()
    objective.checkpoint_gradients()
    calls, recomputed = gradients()
    assert (plain_calls, calls) == (1, 2)
    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_that_cannot_recompute_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Regression holds no transformers model"):
        Regression().checkpoint_gradients()


def test_an_objective_knows_where_it_is() -> None:
    assert Regression().device == torch.device("cpu")
    assert Regression().summary() == {}

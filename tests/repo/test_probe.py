"""The linear probe learns what is linear, and chooses on folds of the train split alone."""

from __future__ import annotations

import probe
import torch


def _clusters(clips: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    targets = torch.arange(clips) % 3
    return 4.0 * torch.eye(3)[targets] + torch.randn(clips, 3, generator=random), targets


def test_separable_classes_are_told_apart() -> None:
    train, targets = _clusters(60, 0)
    test, answers = _clusters(30, 1)
    found = probe.fit_and_predict(train, targets, test, 1e-2)
    assert float((found == answers).float().mean()) > 0.8


def test_the_layer_that_tells_the_classes_apart_is_chosen() -> None:
    informed, targets = _clusters(60, 2)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(3))
    choice = probe.choose(torch.stack([noise, informed], 1), targets, [1, 2, 3, 4] * 15)
    assert choice.layer == 1
    assert choice.accuracy > 0.8

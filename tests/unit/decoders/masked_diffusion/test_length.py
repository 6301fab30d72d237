from __future__ import annotations

import math

import pytest
import torch

from speechadapt.decoders.masked_diffusion.length import (
    LengthHead,
    discretised_logistic,
    length_quantile,
)


def test_the_distribution_is_that_of_the_logistic_between_half_counts() -> None:
    found = discretised_logistic(torch.tensor([2.3]), torch.tensor([0.7]), 5)[0].exp()

    def below(edge: float) -> float:
        return 1 / (1 + math.exp(-(edge - 2.3) / 0.7))

    expected = [below(0.5), *(below(k + 0.5) - below(k - 0.5) for k in range(1, 5)), 1 - below(4.5)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("mean", "width"), [(0.0, 0.05), (400.0, 0.05), (7.0, 30.0)])
def test_probabilities_add_up_to_one_and_stay_finite_far_out(mean: float, width: float) -> None:
    found = discretised_logistic(torch.tensor([mean]), torch.tensor([width]), 60)
    assert torch.isfinite(found).all()
    assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_the_quantile_is_the_smallest_count_that_suffices() -> None:
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01]]).log()
    assert length_quantile(chances, 0.5) == [2, 0]
    assert length_quantile(chances, 0.65) == [3, 0]
    assert length_quantile(chances, 0.999999) == [3, 3]
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        length_quantile(chances, 1.0)


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    head = LengthHead(6, 20)
    frames = torch.randn(2, 9, 6)
    frames[1, 4:] = 100.0
    with torch.no_grad():
        together = head(frames, torch.tensor([9, 4]))
        alone = head(frames[1:, :4], torch.tensor([4]))
    assert together.shape == (2, 21)
    assert torch.allclose(together[1], alone[0], atol=1e-5)


def test_the_tokens_reached_grow_to_the_mean_of_the_count() -> None:
    torch.manual_seed(0)
    head = LengthHead(6, 20)
    frames, lengths = torch.randn(2, 9, 6), torch.tensor([9, 4])
    with torch.no_grad():
        reached = head.reached(frames, lengths)
    assert bool((reached.diff(dim=1) >= 0).all())
    assert bool((reached[1, 4:] == reached[1, 4]).all())
    assert 0 < float(reached[0, 0]) < float(reached[0, 1])


def test_it_learns_to_count_marked_frames() -> None:
    torch.manual_seed(0)
    head = LengthHead(4, 30)
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        marks = (torch.rand(16, 40, generator=generator) < 0.3).float()
        lengths = torch.randint(10, 41, (16,), generator=generator)
        marks *= torch.arange(40)[None, :] < lengths[:, None]
        frames = torch.randn(16, 40, 4, generator=generator) * 0.1
        frames[..., 0] += 3 * marks
        return frames, lengths, marks.sum(1).long()

    for _ in range(150):
        frames, lengths, counts = batch()
        loss = -head(frames, lengths).gather(1, counts[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames, lengths, counts = batch()
    guessed = torch.tensor(length_quantile(head(frames, lengths), 0.5))
    assert (guessed - counts).abs().float().mean() < 1.0

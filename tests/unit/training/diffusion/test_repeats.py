from __future__ import annotations

import pytest
import torch

from speechadapt.training.diffusion.repeats import Repeats


def test_without_a_count_every_step_hears_its_own_recordings() -> None:
    repeats = Repeats(0, seed=1)
    assert [repeats.source(step) for step in (0, 7, 1000)] == [0, 7, 1000]
    assert repeats.note(7, ["a"]) == {}
    frames = torch.randn(1, 3, 4)
    assert repeats.keep({}, frames, torch.tensor([3])) is frames
    assert repeats.known(7) is None


def test_every_pass_hears_all_recordings_once_in_another_order() -> None:
    repeats = Repeats(6, seed=1)
    passes = [[repeats.source(6 * number + place) for place in range(6)] for number in range(4)]
    assert all(sorted(one) == list(range(6)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    again = Repeats(6, seed=1)
    assert [again.source(step) for step in (13, 2)] == [passes[2][1], passes[0][2]]
    other = Repeats(6, seed=2)
    assert [other.source(place) for place in range(24)] != [one for each in passes for one in each]


def test_a_first_visit_hears_what_later_ones_do() -> None:
    repeats = Repeats(3, seed=1)
    mark = repeats.note(2, ["yes", "no"])
    frames, lengths = torch.randn(2, 5, 4), torch.tensor([5, 3])
    heard = repeats.keep(mark, frames, lengths)
    assert heard.dtype == frames.dtype
    assert torch.equal(heard, frames.half().float())
    assert not torch.equal(heard, frames)
    known = repeats.known(2)
    assert known is not None
    texts, batch = known
    assert texts == ["yes", "no"]
    assert torch.equal(batch["frames"].float(), heard)
    assert torch.equal(batch["frame_lengths"], lengths)
    assert repeats.known(1) is None


@pytest.mark.parametrize("source", [0, 2])
def test_recordings_noted_but_not_heard_are_still_unknown(source: int) -> None:
    repeats = Repeats(3, seed=1)
    repeats.note(source, ["yes"])
    assert repeats.known(source) is None

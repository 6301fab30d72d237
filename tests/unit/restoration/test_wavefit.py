"""WaveFit: the iteration as written, with its gain, its starts and its number of steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech, gain_adjusted
from speechadapt.restoration.wavefit import WaveFitConfig, WaveFitVocoder

SPEECH = Speech(6, 50.0, 2000)
TINY = WaveFitConfig(
    upsample=1,
    factors=(5, 4, 2),
    channels=(8, 6, 4),
    down_channels=(3, 4, 8),
    width=8,
    layers=1,
    iterations=3,
    istft=IstftConfig(width=8, layers=1),
    bands=6,
)


def make(**changes: object) -> WaveFitVocoder:
    torch.manual_seed(0)
    return WaveFitVocoder(SPEECH, replace(TINY, **changes))  # type: ignore[arg-type]


def stream(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_iteration_is_the_one_written_down() -> None:
    vocoder, frames = make(), torch.randn(2, 7, 6)
    found = vocoder(frames, random=stream())
    looked = vocoder.frame_net(frames)
    current = torch.randn(2, 280, generator=stream())
    for index, made in zip((3.0, 2.0, 1.0), found, strict=True):
        current = gain_adjusted(current - vocoder.net(current, looked.transpose(1, 2), index))
        torch.testing.assert_close(made, current)
    assert found[-1].shape == (2, 280)


def test_fewer_iterations_are_the_first_and_more_repeat_the_last_index() -> None:
    vocoder, frames = make(), torch.randn(1, 7, 6)
    whole = vocoder(frames, random=stream())
    for count in (1, 2):
        fewer = vocoder(frames, count, stream())
        assert len(fewer) == count
        assert torch.equal(fewer[-1], whole[count - 1])
    assert len(vocoder(frames, 6, stream())) == 6


def test_no_gradient_crosses_from_one_iteration_to_the_one_before() -> None:
    vocoder, frames = make(), torch.randn(1, 7, 6)
    asked = []
    net = vocoder.net.forward

    def spy(waveforms: torch.Tensor, looked: torch.Tensor, index: float) -> torch.Tensor:
        asked.append(waveforms.requires_grad)
        return net(waveforms, looked, index)

    vocoder.net.forward = spy  # type: ignore[method-assign]
    vocoder(frames)
    assert asked == [False, False, False]


def test_noise_is_seeded_by_its_stream_or_the_global_one() -> None:
    vocoder, frames = make(), torch.randn(1, 7, 6)
    one, same, other = (vocoder(frames, random=stream(seed))[-1] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    torch.manual_seed(7)
    first = vocoder(frames)[-1]
    torch.manual_seed(7)
    assert torch.equal(first, vocoder(frames)[-1])


def test_it_may_start_from_another_vocoder_that_stays_frozen() -> None:
    vocoder, frames = make(initial="istft"), torch.randn(1, 7, 6)
    assert vocoder.start is not None
    looked = vocoder.frame_net(frames)
    assert torch.equal(vocoder.initial(frames, looked, None), vocoder.start(frames)[0])
    vocoder(frames)[-1].sum().backward()
    assert all(one.grad is None for one in vocoder.start.parameters())
    assert torch.equal(vocoder(frames)[-1], vocoder(frames)[-1])


def test_it_may_start_from_shaped_noise_whose_envelope_is_trained() -> None:
    vocoder, frames = make(initial="envelope"), torch.randn(1, 7, 6)
    assert vocoder.envelope is not None
    loss = vocoder.auxiliary_loss(frames, torch.randn(1, 280))
    assert loss is not None
    loss.backward()
    assert bool(vocoder.envelope.head.weight.grad.any())  # type: ignore[union-attr]
    assert vocoder(frames)[-1].shape == (1, 280)
    assert make().auxiliary_loss(frames, torch.randn(1, 280)) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="make 40 samples of a frame, but it lasts 20"):
        make(upsample=2)
    problems = bind(WaveFitConfig, {"factors": [5, 4], "channels": [0, 1, 1]})[1]
    assert "got 2, 3 and 5" in problems[0]
    assert "1 or more" in problems[1]

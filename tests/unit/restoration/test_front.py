"""What stands in front of an encoder: starts as nothing, hears no padding and no level."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.bind import bind
from speechadapt.encoders.features import seamless_fbank
from speechadapt.restoration.front import Front, FrontConfig

BINS, STRIDE = 20, 2
KINDS = ("statistics", "convolution")


def make(kind: str, untrained: bool = False) -> Front:
    torch.manual_seed(0)
    front = Front(BINS, STRIDE, FrontConfig(kind, width=8, layers=2, kernel=3))
    if not untrained:
        torch.nn.init.normal_(front.out.weight, std=0.3)
        torch.nn.init.normal_(front.out.bias, std=0.3)
    return front


def log_mels(clips) -> tuple[torch.Tensor, torch.Tensor]:
    return seamless_fbank(clips, STRIDE, BINS, normalise=False)


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_front_gives_the_encoders_own_features(kind: str, signal) -> None:
    clips = [signal(6000), signal(3200, 1)]
    heard = make(kind, untrained=True)(*log_mels(clips))
    wanted, _ = seamless_fbank(clips, STRIDE, BINS)
    torch.testing.assert_close(heard, wanted, atol=1e-4, rtol=1e-4)
    assert float((make(kind)(*log_mels(clips)) - wanted).abs().mean().detach()) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_singles_whatever_the_padding_holds(kind: str, signal) -> None:
    front = make(kind)
    features, lengths = log_mels([signal(6000), signal(3000, 1)])
    short = int(lengths[1])
    features[1, short:] = 1e4
    both, alone = front(features, lengths), front(features[1:, :short], lengths[1:])
    torch.testing.assert_close(both[1:, :short], alone, atol=1e-5, rtol=1e-5)
    assert not both[1, short:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_another_level_changes_nothing(kind: str, signal) -> None:
    front = make(kind)
    loud, quiet = (front(*log_mels([gain * signal(6000)])) for gain in (1.0, 0.01))
    torch.testing.assert_close(quiet, loud, atol=5e-3, rtol=5e-3)


@torch.no_grad()
def change(kind: str, clip: torch.Tensor) -> torch.Tensor:
    features, lengths = log_mels([clip])
    return make(kind)(features, lengths) - make(kind, untrained=True)(features, lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_clips_of_one_stack_stay_as_they_are(kind: str, signal) -> None:
    for clip in (torch.zeros(8000), torch.full((8000,), 0.5)):
        assert not make(kind)(*log_mels([clip])).any()
    short, long = change(kind, signal(400)), change(kind, signal(16000))
    assert bool(short.isfinite().all())
    assert float(short.abs().mean()) < 0.3 * float(long.abs().mean())


def test_statistics_change_every_frame_alike_and_convolutions_look_both_ways(signal) -> None:
    features, lengths = log_mels([signal(8000)])
    own = make("statistics", untrained=True)(features, lengths).reshape(-1, BINS)
    heard = make("statistics")(features, lengths).reshape(-1, BINS)
    for column in range(BINS):
        line = torch.stack([own[:, column], torch.ones(len(own))], dim=1)
        fitted = line @ torch.linalg.lstsq(line, heard[:, column, None]).solution
        torch.testing.assert_close(fitted[:, 0], heard[:, column], atol=1e-4, rtol=1e-4)
    standard = torch.randn(1, 9, STRIDE * BINS, requires_grad=True)
    front, summary = make("convolution"), torch.zeros(1, 7 * BINS + 5)
    front._convolved(standard, summary, torch.ones(1, 9, 1), torch.float32)[0, 4].sum().backward()
    assert standard.grad is not None
    reached = standard.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [False, False, True, True, True, True, True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str, signal) -> None:
    front = make(kind)
    heard = front(*log_mels([signal(6000), signal(3000, 1)]))
    (heard * torch.randn_like(heard)).sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in front.parameters())


def test_settings_are_checked() -> None:
    assert "front.kernel must be odd, got 4." in bind(FrontConfig, {"kernel": 4})[1][0]
    assert "kind" in bind(FrontConfig, {"kind": "statistic"}, "front")[1][0]

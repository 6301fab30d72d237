"""Statistics of clips: the extractor's own, level-free, blind to padding, finite everywhere."""

from __future__ import annotations

import pytest
import torch

from speechadapt.encoders.features import seamless_fbank
from speechadapt.restoration.statistics import clip_statistics, summary_size

BINS = 80


def log_mels(clips) -> tuple[torch.Tensor, torch.Tensor]:
    return seamless_fbank(clips, 1, BINS, normalise=False)


def test_standard_log_mels_are_what_the_extractor_gives(signal) -> None:
    clips = [signal(6000), signal(3000, 1)]
    found = clip_statistics(*log_mels(clips))
    wanted, _ = seamless_fbank(clips, 1, BINS)
    torch.testing.assert_close(found.standard, wanted, atol=1e-4, rtol=1e-4)


def test_the_summary_holds_mean_deviation_and_quantiles_of_each_bin(signal) -> None:
    values, lengths = log_mels([signal(6000)])
    found = clip_statistics(values, lengths)
    frames = values[0]
    mean, deviation = frames.mean(0), frames.std(0)
    standard = (frames - mean) / deviation
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    wanted = torch.cat(
        [
            mean - mean.mean(),
            deviation.log(),
            standard.quantile(shares, dim=0).flatten(),
            standard.mean(1).quantile(shares),
        ]
    )
    assert found.summary.shape == (1, summary_size(BINS))
    torch.testing.assert_close(found.summary[0], wanted, atol=1e-4, rtol=1e-4)


def test_what_lies_past_the_end_of_a_clip_takes_no_part(signal) -> None:
    values, lengths = log_mels([signal(6000), signal(3000, 1)])
    values[1, int(lengths[1]) :] = torch.nan
    both = clip_statistics(values, lengths)
    alone = clip_statistics(values[1:, : int(lengths[1])], lengths[1:])
    torch.testing.assert_close(both.summary[1:], alone.summary)
    torch.testing.assert_close(both.trust[1:], alone.trust)
    assert not both.standard[1, int(lengths[1]) :].any()


def test_another_level_changes_nothing(signal) -> None:
    loud, quiet = (clip_statistics(*log_mels([gain * signal(6000)])) for gain in (1.0, 0.01))
    torch.testing.assert_close(quiet.summary, loud.summary, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(quiet.standard, loud.standard, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("samples", [400, 560, 16000])
def test_silence_and_single_frames_are_finite_and_not_trusted(samples: int) -> None:
    for clip in (torch.zeros(samples), torch.full((samples,), 0.5)):
        found = clip_statistics(*log_mels([clip]))
        assert all(bool(part.isfinite().all()) for part in vars(found).values())
        assert float(found.trust) < 1e-6
        assert not found.standard.any()


def test_speech_is_trusted_more_the_longer_it_lasts(signal) -> None:
    short, long = (float(clip_statistics(*log_mels([signal(n)])).trust) for n in (1000, 48000))
    assert short < 0.5
    assert 0.9 < long < 1.0

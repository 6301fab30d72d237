from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.memory import frame_track, remember
from speechadapt.core.errors import ConfigError


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_the_last_layer_of_as_many_tokens_as_frames_is_the_encoders_output(load, clips, family):
    encoder = load(family)
    found = remember(encoder, clips, tokens=10_000)
    with torch.no_grad():
        frames, lengths = encoder.encode(clips)
    closing = {"whisper": "layer_norm", "ast": "layernorm"}.get(family)
    for row, memory in enumerate(found):
        assert len(memory) == lengths[row]
        if closing == "layer_norm":
            memory = encoder.model.layer_norm(memory)
        if family != "ast":  # whose norm stands between the patches and their mean
            torch.testing.assert_close(memory, frames[row, : lengths[row]], rtol=1e-4, atol=1e-4)


def test_tokens_are_means_of_stretches(load, clips):
    encoder = load()
    (all_frames,) = remember(encoder, clips[:1], layer=0, tokens=10_000)
    (one,) = remember(encoder, clips[:1], layer=0, tokens=1)
    (two,) = remember(encoder, clips[:1], layer=0, tokens=2)
    torch.testing.assert_close(one[0], all_frames.mean(0))
    torch.testing.assert_close(two[0], all_frames[: len(all_frames) // 2].mean(0))


def test_adapters_are_off_while_it_listens(load, clips, move):
    encoder = load()
    before = remember(encoder, clips)
    move(attach(encoder, "parallel"))
    after = remember(encoder, clips)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert encoder.attached.selection.rows == (("parallel",),)
    with pytest.raises(ConfigError, match="layer 5 was asked for; whisper has layers 0 to 1"):
        remember(encoder, clips, layer=5)


def test_a_track_keeps_its_mean_at_any_rate():
    """Each frame is the mean of the track over its time: written out, up and down."""
    track = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert frame_track(track, 100.0, 50.0)[:, 0].tolist() == [0.5, 0.5]
    assert frame_track(track, 100.0, 200.0)[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    third = frame_track(track, 100.0, 75.0)[:, 0]
    torch.testing.assert_close(third, torch.tensor([0.25, 1.0, 0.25]))


def test_a_track_that_starts_late_is_zero_before():
    found = frame_track(torch.ones(4, 2), 100.0, 50.0, start_s=0.03)
    assert found.shape[1] == 2
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 0.5, 1.0, 0.5]))
    with pytest.raises(ConfigError, match="from one rate above 0 to another, got 0 and 50 Hz"):
        frame_track(torch.ones(4), 0.0, 50.0)

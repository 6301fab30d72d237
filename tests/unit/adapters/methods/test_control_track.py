from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.control_track import (
    METHOD,
    ControlTrackAdapter,
    ControlTrackConfig,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import Grid, Site

SITE = Site("layer.0.end", "a", "a", 4, 4)


def adapter_of(site: Site = SITE, **options: int) -> ControlTrackAdapter:
    torch.manual_seed(0)
    adapter = ControlTrackAdapter(site, ControlTrackConfig(**options), None)
    with torch.no_grad():
        adapter.spread.weight.copy_(torch.randn(adapter.spread.weight.shape))
    return adapter


def test_the_formula():
    """A convolution over the track, written out frame by frame."""
    adapter = adapter_of(channels=2, reach=1)
    track, y = torch.randn(5, 2), torch.randn(1, 8, 4)
    found = adapter.leave(y, y, Context(None, {"control": [track]}))
    padded = torch.zeros(10, 2)
    padded[1:6] = track
    for frame in range(8):
        wanted = y[0, frame].clone()
        for tap in range(3):
            wanted += adapter.spread.weight[:, :, tap] @ padded[frame + tap]
        torch.testing.assert_close(found[0, frame], wanted, rtol=1e-4, atol=1e-5)
    assert sum(one.numel() for one in adapter.parameters()) == METHOD.parameters(
        SITE, ControlTrackConfig(channels=2, reach=1)
    )


def test_no_track_and_a_track_of_zeros_change_nothing():
    adapter, y = adapter_of(), torch.randn(3, 6, 4)
    rows = [None, torch.zeros(6), torch.ones(9)]
    found = adapter.leave(y, y, Context(None, {"control": rows}))
    assert torch.equal(found[:2], y[:2])
    assert not torch.allclose(found[2], y[2])


def test_patches_of_one_time_see_the_same_and_special_tokens_nothing():
    site = Site("layer.0.end", "a", "a", 4, 4, grid=Grid(specials=2, rows=3, columns=5))
    adapter, y = adapter_of(site), torch.zeros(1, 17, 4)
    found = adapter.leave(y, y, Context(None, {"control": [torch.arange(5.0)]}))
    assert not bool(found[:, :2].any())
    rows = found[0, 2:].reshape(3, 5, 4)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0, 1], rows[0, 3])


def test_tracks_that_do_not_fit_are_refused(load, clips):
    encoder = load()
    attach(encoder, "control_track")
    with active(encoder, "control_track", {"control": [torch.zeros(9, 2)] * 3}):
        with pytest.raises(ConfigError, match=r"must be \[frames, 1\] for each row, got \[9, 2\]"):
            encoder.encode(clips)
    with active(encoder, "control_track", {"control": [None]}):
        with pytest.raises(ConfigError, match="has 1 entries for 3 rows"):
            encoder.encode(clips)

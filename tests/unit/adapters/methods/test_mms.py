from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.methods.mms import METHOD, MmsAdapter, MmsConfig
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import ConvShape, Site, at

END = at("layer.0.end", "layers.0", 8, 8, "WhisperEncoderLayer")


def test_output_is_the_published_formula() -> None:
    torch.manual_seed(0)
    adapter = MmsAdapter(END, MmsConfig(bottleneck=3, initial="normal"))
    inner = adapter.bottleneck
    states = 4 * torch.randn(2, 5, 8)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn_like(parameter))
        centred = states - states.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        normed = normed * inner.norm.weight + inner.norm.bias
        narrow = (normed @ inner.down.weight.T + inner.down.bias).clamp(min=0)
        wanted = states + narrow @ inner.up.weight.T + inner.up.bias
        torch.testing.assert_close(adapter.leave(states, states, Context()), wanted)


def test_untrained_adapter_changes_nothing() -> None:
    adapter = MmsAdapter(END, MmsConfig(bottleneck=3))
    states = torch.randn(2, 5, 8)
    assert torch.equal(adapter.leave(states, states, Context()), states)


def test_closed_form_is_that_of_the_published_width() -> None:
    # 48 layers of width 1280 with 16 values in between: 2 d r + r + d and the norm's 2 d
    site = at("layer.0.end", "layers.0", 1280, 1280, "layer")
    assert METHOD.parameters(site, MmsConfig()) == 2 * 1280 * 16 + 16 + 1280 + 2 * 1280


def test_width_above_the_sites_and_convolutions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.bottleneck must be between 1 and 8 .* got 9"):
        MmsAdapter(END, MmsConfig(bottleneck=9))
    conv = Site("stem.conv.0", "c", "c", 8, 8, kind="Conv1d", conv=ConvShape(3))
    with pytest.raises(SiteError, match=r"'mms' works on frames, but 'stem\.conv\.0' is a Conv"):
        MmsAdapter(conv, MmsConfig(bottleneck=2))

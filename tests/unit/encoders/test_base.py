from __future__ import annotations

import pytest
import torch

from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.base import check_padding
from speechadapt.encoders.catalog import load_encoder


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return load_encoder(tiny_folder("w2v_bert"))


def test_an_unknown_role_names_near_misses(encoder):
    with pytest.raises(SiteError, match=r"w2v_bert has no site 'layer\.0\.attn\.g'.*attn\.[qkv]"):
        encoder.site("layer.0.attn.g")


def test_select_takes_patterns_over_the_encoders_own_table(encoder):
    assert [site.role for site in encoder.select(["conv.pw1"])] == [
        "layer.0.conv.pw1",
        "layer.1.conv.pw1",
    ]


def test_encode_follows_the_models_precision(tiny_folder, signal):
    encoder = load_encoder(tiny_folder("w2v_bert")).to(torch.float64)
    frames, _ = encoder.encode([signal(4000)])
    assert frames.dtype == torch.float64


@pytest.mark.parametrize("padding", ["full", "native"])
def test_the_two_paddings_are_accepted(padding):
    check_padding(padding)


def test_another_padding_is_refused():
    with pytest.raises(ConfigError, match=r"'none' was asked for\. On offer: full, native"):
        check_padding("none")

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


def test_the_fingerprint_is_computed_again_only_after_a_write(encoder, monkeypatch):
    first = encoder.fingerprint()
    monkeypatch.setattr("speechadapt.encoders.base.fingerprint_weights", lambda model: "new")
    assert encoder.fingerprint() == first
    with torch.no_grad():
        next(encoder.model.parameters()).add_(1.0)
    assert encoder.fingerprint() == "new"


def test_followers_change_device_precision_and_mode_with_the_encoder(tiny_folder):
    encoder = load_encoder(tiny_folder("ast"))
    follower = torch.nn.Linear(2, 2)
    keys = list(encoder.state_dict())
    encoder.followers.append(follower)
    encoder.to(torch.bfloat16).eval()
    assert follower.weight.dtype == torch.bfloat16
    assert not follower.training
    assert encoder.train() is encoder
    assert follower.training
    assert list(encoder.state_dict()) == keys
    assert len(list(encoder.parameters())) == len(list(encoder.model.parameters()))

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.adapters.attach import active, attachments
from speechadapt.adapters.interop.foreign import Foreign, install
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder

TinyFolder = Callable[[str], Path]
ROLE = "layer.0.attn.q"


@pytest.fixture
def encoder(tiny_folder: TinyFolder) -> Encoder:
    return load_encoder(tiny_folder("whisper"))


def foreign(**changes: Any) -> Foreign:
    torch.manual_seed(0)
    tensors = {
        f"{ROLE}:change.down": torch.randn(2, 32),
        f"{ROLE}:change.up": torch.randn(32, 2),
    }
    kept: dict[str, Any] = {
        "source": "peft",
        "folder": Path("somewhere"),
        "method": "lora",
        "config": {"rank": 2},
        "roles": (ROLE,),
        "tensors": {**tensors, **changes.pop("more", {})},
    }
    return Foreign(**{**kept, **changes})


def test_installed_adapter_is_only_where_it_was_and_starts_in_evaluation(encoder: Encoder) -> None:
    handle = install(encoder, foreign(left_out=("decoder.x",), notes={"of": 1}), "one")
    assert [site.role for site in handle.sites] == [ROLE]
    assert not handle.module.training
    said = handle.notes["training"]["imported"]
    assert said == {"format": "peft", "left_out": ["decoder.x"], "of": 1}


def test_installed_adapter_acts_only_if_asked_to(encoder: Encoder, signal: Any) -> None:
    clip = [signal(8000)]
    before = encoder.encode(clip)[0]
    install(encoder, foreign(), "one", activate=False)
    assert torch.equal(encoder.encode(clip)[0], before)
    with active(encoder, "one"):
        assert not torch.equal(encoder.encode(clip)[0], before)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"more": {f"{ROLE}:change.bias": torch.zeros(32)}}, CheckpointError, "has beyond what"),
        (
            {"tensors": {f"{ROLE}:change.up": torch.zeros(32, 2)}},
            CheckpointError,
            "lacks 1 tensors",
        ),
        ({"config": {"rank": 3}}, CheckpointError, r"is \[2, 32\] there, this whisper needs"),
        ({"config": {"rank": 0}}, ConfigError, r"rank must be 1 or more, got 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    changes: dict[str, Any], error: type[Exception], said: str, encoder: Encoder
) -> None:
    with pytest.raises(error, match=said):
        install(encoder, foreign(**changes), "one")
    assert attachments(encoder) == {}


def test_norms_that_are_not_named_stay_as_they_are(encoder: Encoder) -> None:
    gain = {"layer.1.norm.ffn:gain": torch.full((32,), 0.5)}
    handle = install(encoder, foreign(train_norms="all", more=gain), "one")
    tensors = handle.module.tensors()
    assert torch.equal(tensors["layer.1.norm.ffn:gain"], gain["layer.1.norm.ffn:gain"])
    assert tensors["layer.0.norm.ffn:gain"].abs().max() == 0
    assert tensors["layer.1.norm.ffn:shift"].abs().max() == 0

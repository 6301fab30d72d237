from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speechadapt.adapters.interop.whole import split_whole
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder

TinyFolder = Callable[[str], Path]
PATH, ROLE = "m.layers.0.final_layer_norm", "layer.0.norm.ffn"
FOLDER = Path("somewhere")


@pytest.fixture
def encoder(tiny_folder: TinyFolder) -> Encoder:
    return load_encoder(tiny_folder("whisper"))


def test_norm_saved_whole_becomes_the_change_that_gives_it(encoder: Encoder) -> None:
    norm = encoder.model.get_submodule("layers.0.final_layer_norm")
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        norm.bias.normal_()  # type: ignore[union-attr, operator]
    saved = {f"{PATH}.weight": torch.randn(32), f"{PATH}.bias": torch.randn(32)}
    changes, head = split_whole(encoder, saved, {PATH: ROLE}, FOLDER)
    assert head == {}
    states = torch.randn(5, 32)
    normed = torch.nn.functional.layer_norm(states, (32,))
    wanted = normed * saved[f"{PATH}.weight"] + saved[f"{PATH}.bias"]
    with torch.no_grad():
        got = norm(states) * (1 + changes[f"{ROLE}:gain"]) + changes[f"{ROLE}:shift"]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_what_lies_outside_the_encoder_is_a_head(encoder: Encoder) -> None:
    saved = {"classifier.weight": torch.ones(2), "classifier.bias": torch.ones(2)}
    changes, head = split_whole(encoder, saved, {}, FOLDER)
    assert changes == {}
    assert head == saved


def test_modules_that_are_no_norms_are_refused(encoder: Encoder) -> None:
    saved = {"m.layers.0.fc1.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"holds 'layer\.0\.ffn\.up' whole \(weight\), which"):
        split_whole(encoder, saved, {"m.layers.0.fc1": "layer.0.ffn.up"}, FOLDER)


def test_norm_that_no_change_reaches_is_refused(encoder: Encoder) -> None:
    saved = {f"{PATH}.weight": torch.ones(8), f"{PATH}.bias": torch.ones(8)}
    with pytest.raises(
        CheckpointError, match=r"its norm 'layer\.0\.norm\.ffn' has \[8\] values, this"
    ):
        split_whole(encoder, saved, {PATH: ROLE}, FOLDER)
    with torch.no_grad():
        encoder.model.get_submodule("layers.0.final_layer_norm").weight[3] = 0  # type: ignore[index, operator]
    saved = {f"{PATH}.weight": torch.ones(32), f"{PATH}.bias": torch.ones(32)}
    with pytest.raises(CheckpointError, match="weights there are zero, where no gain leads"):
        split_whole(encoder, saved, {PATH: ROLE}, FOLDER)

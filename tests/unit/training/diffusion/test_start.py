from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from speechadapt.core.errors import CheckpointError
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.training.diffusion.config import NetworkConfig
from speechadapt.training.diffusion.start import start, train_only

SMALL = NetworkConfig(
    dim=16, layers=1, heads=2, feed_forward=16, positions=20, text_tokens=262, dropout=0.25
)


def test_a_new_network_has_a_vocabulary_of_the_texts() -> None:
    network, vocabulary = start(SMALL, "", "", ["the light", "the night"] * 3, 7)
    assert vocabulary.size == 262
    assert len(vocabulary.encode("the")) < 4
    assert network.shape.condition_dim == 7
    assert network.shape.dropout == 0.25


def test_a_text_model_gains_ears_and_keeps_its_shape(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    text = tiny_network(vocabulary)
    save_folder(tmp_path, text, vocabulary, None, torch.float32)
    network, read = start(SMALL, str(tmp_path), "", [], 7)
    assert (network.shape.dim, network.shape.condition_dim) == (24, 7)
    assert network.shape.dropout == 0.25
    assert read.encode("on") == vocabulary.encode("on")
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in text.state_dict().items())


def test_a_hearing_model_goes_on_with_its_own_encoder_alone(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    made = tiny_network(vocabulary, 7)
    save_folder(tmp_path, made, vocabulary, Heard("x", "y"), torch.float32)
    network, _ = start(SMALL, str(tmp_path), "", [], 7)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in made.state_dict().items())
    with pytest.raises(CheckpointError, match=r"hears frames of width 7, the run has .* width 9"):
        start(SMALL, str(tmp_path), "", [], 9)


@pytest.mark.parametrize("hears", [0, 7])
def test_a_network_gains_streams_and_keeps_its_weights(tmp_path: Path, hears: int) -> None:
    vocabulary = tiny_vocabulary()
    made = tiny_network(vocabulary, hears)
    save_folder(tmp_path, made, vocabulary, Heard("x", "y") if hears else None, torch.float32)
    wide = replace(SMALL, streams=4, prefix=5)
    network, _ = start(wide, str(tmp_path), "", [], 7)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in made.state_dict().items())
    assert own["streams.prefixes"].shape == (2, 2, 4, 2, 5, 12)
    train_only(network, "adapter")
    assert all(part.requires_grad for part in network.streams.parameters())
    assert not network.layers[0].attention.out.weight.requires_grad


def test_a_network_of_several_streams_keeps_them(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    made = tiny_network(vocabulary, 7, streams=2)
    save_folder(tmp_path, made, vocabulary, Heard("x", "y"), torch.float32)
    for config in (SMALL, replace(SMALL, streams=2, prefix=9)):
        network, _ = start(config, str(tmp_path), "", [], 7)
        own = network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in made.state_dict().items())
    with pytest.raises(CheckpointError, match=r"model.streams=4 was asked for, .* has 2 streams"):
        start(replace(SMALL, streams=4), str(tmp_path), "", [], 7)


def test_a_file_of_another_project_needs_its_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"has no lm_head\.weight"):
        start(SMALL, str(path), str(tmp_path), [], 7)


def test_the_adapter_stage_leaves_the_text_network_alone() -> None:
    network = DiffusionNetwork(DiffusionShape(11, 16, 1, 2, 16, 9, condition_dim=7))
    train_only(network, "adapter")
    trained = {name.split(".")[-2] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"q", "kv", "out", "cross", "norm_cross", "0", "1"} | {
        "norm",
        "hidden",
        "amount",
        "width",
    }
    assert not network.norm.weight.requires_grad
    assert not network.layers[0].attention.out.weight.requires_grad
    train_only(network, "decoder")
    assert all(part.requires_grad for part in network.parameters())

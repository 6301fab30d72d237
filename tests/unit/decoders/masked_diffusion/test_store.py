from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechadapt.core.errors import CheckpointError
from speechadapt.decoders.masked_diffusion.store import (
    Heard,
    is_diffusion,
    read_config,
    read_folder,
    read_heard,
    save_folder,
)
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary

HEARD = Heard("mini-toy", "abc", "native", 0.1)
STREAMS = ("streams", "prefix")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocabulary = tiny_vocabulary()
    save_folder(tmp_path / "toy", tiny_network(vocabulary, 10), vocabulary, HEARD)
    return tmp_path / "toy"


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_model_comes_back_with_its_weights_in_half_precision(folder: Path) -> None:
    network, vocabulary = read_folder(folder)
    expected = tiny_network(vocabulary, 10).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name].half().float()), name
    assert not network.training
    assert vocabulary.encode("a b") == tiny_vocabulary().encode("a b")
    assert read_heard(read_config(folder), "toy") == HEARD


def test_a_model_comes_back_with_its_streams(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    made = tiny_network(vocabulary, 10, streams=2)
    save_folder(tmp_path, made, vocabulary, HEARD, torch.float32)
    network, _ = read_folder(tmp_path)
    assert network.shape == made.shape
    expected = made.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    change(tmp_path, streams=1)
    with pytest.raises(CheckpointError, match=r"5 are in excess \(\['streams.mixer.inner.bias'"):
        read_folder(tmp_path)


def test_a_folder_written_before_there_were_streams_is_a_plain_network(folder: Path) -> None:
    path = folder / "config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({key: said[key] for key in said if key not in STREAMS}))
    assert set(STREAMS) <= set(said)
    network, _ = read_folder(folder)
    assert network.streams is None


def test_a_text_model_names_no_encoder(tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary()
    save_folder(tmp_path, tiny_network(vocabulary), vocabulary, None)
    assert read_heard(read_config(tmp_path), "toy") is None


def test_a_cut_file_is_damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_folder(folder)


def test_missing_foreign_and_odd_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = load_file(path)
    save_file({("x" if name == "norm.weight" else name): one for name, one in whole.items()}, path)
    with pytest.raises(CheckpointError, match=r"missing \(\['norm.weight'\]\).*excess \(\['x'\]\)"):
        read_folder(folder)
    save_file(whole | {"norm.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"'norm.weight' of 'toy' is \(3,\).* it is \(24,\)"):
        read_folder(folder)
    save_file(whole | {"norm.weight": torch.full((24,), torch.nan)}, path)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        read_folder(folder)


def test_a_vocabulary_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    change(folder, vocab_size=100)
    with pytest.raises(CheckpointError, match="the tokenizer has 258 tokens, the model writes 100"):
        read_folder(folder)
    vocabulary = tiny_vocabulary()
    wider = Vocabulary(vocabulary.tokenizer, 1, 0, 300)
    with pytest.raises(CheckpointError, match=r"writes 258 tokens .* vocabulary of 300"):
        save_folder(tmp_path / "x", tiny_network(vocabulary), wider, None)


def test_another_kind_of_folder_is_refused(folder: Path) -> None:
    assert is_diffusion({"architectures": ["MaskedDiffusionDecoder"]})
    assert not is_diffusion({"architectures": None})
    assert not is_diffusion([])
    change(folder, encoder={"name": "x"})
    with pytest.raises(CheckpointError, match="does not say which encoder it hears with"):
        read_heard(read_config(folder), "toy")
    change(folder, architectures=["Other"])
    with pytest.raises(CheckpointError, match="holds no MaskedDiffusionDecoder"):
        read_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no model folder"):
        read_folder(folder)

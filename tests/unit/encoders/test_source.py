from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTFeatureExtractor, ASTModel
from transformers.utils import logging

from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.source import (
    fingerprint_folder,
    fingerprint_module,
    fingerprint_weights,
    load_extractor,
    load_weights,
    quiet_progress,
    weight_files,
)


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_folder("ast"), tmp_path / "ast"))


def rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def double_norm(tensors) -> None:
    tensors["layernorm.weight"] *= 2


def test_the_folders_fingerprint_follows_the_weights_only(folder):
    before = fingerprint_folder(folder)
    (folder / "README.md").write_text("other text")
    assert fingerprint_folder(folder) == before
    rewrite(folder, double_norm)
    assert fingerprint_folder(folder) != before


def test_shards_are_all_part_of_the_fingerprint(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00002.safetensors")
    sharded = fingerprint_folder(folder)
    rewrite(folder, double_norm)
    assert fingerprint_folder(folder) != sharded


def test_a_modules_fingerprint_sees_values_names_and_types():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 3)
    prints = {fingerprint_module(module)}
    prints.add(fingerprint_module(torch.nn.Sequential(module)))
    assert fingerprint_module(module) in prints
    with torch.no_grad():
        module.bias[0] += 1
    prints.add(fingerprint_module(module))
    prints.add(fingerprint_module(module.to(torch.bfloat16)))
    assert len(prints) == 4


def test_the_weights_fingerprint_sees_values_alone():
    one, other = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    other[0].load_state_dict(one.state_dict())
    assert fingerprint_weights(one) == fingerprint_weights(other)  # called 0.weight, 0.bias there
    half = one.half()
    exact = torch.nn.Linear(3, 2)
    exact.load_state_dict({key: tensor.float() for key, tensor in half.state_dict().items()})
    assert fingerprint_weights(half) == fingerprint_weights(exact)
    with torch.no_grad():
        exact.bias[0] = torch.nextafter(exact.bias[0], torch.tensor(9.0))
    assert fingerprint_weights(half) != fingerprint_weights(exact)


def test_the_weights_fingerprint_sees_shapes():
    tensors = torch.arange(6.0)
    one, other = torch.nn.Module(), torch.nn.Module()
    one.register_buffer("x", tensors.reshape(2, 3))
    other.register_buffer("x", tensors.reshape(3, 2))
    assert fingerprint_weights(one) != fingerprint_weights(other)


def test_loaded_weights_are_in_evaluation_mode_and_of_the_asked_precision(folder):
    model = load_weights(ASTModel, folder, torch.float16)
    assert not model.training
    assert next(model.parameters()).dtype == torch.float16


def test_missing_tensors_are_an_error_not_random_weights(folder):
    rewrite(folder, lambda tensors: tensors.pop("layernorm.weight"))
    with pytest.raises(CheckpointError, match=r"1 of its tensors.*'layernorm\.weight'"):
        load_weights(ASTModel, folder, torch.float32)


def test_tensors_of_another_shape_are_an_error(folder):
    rewrite(folder, lambda tensors: tensors.update({"layernorm.weight": torch.ones(7)}))
    with pytest.raises(CheckpointError, match="was to be loaded as ASTModel, but"):
        load_weights(ASTModel, folder, torch.float32)


def test_a_damaged_weight_file_is_an_error(folder):
    (folder / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json")
    with pytest.raises(CheckpointError, match="was to be loaded as ASTModel, but"):
        load_weights(ASTModel, folder, torch.float32)


def test_pickled_weights_are_named_but_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model\.bin\)"):
        load_weights(ASTModel, folder, torch.float32)


def test_a_folder_without_weights_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no weights"):
        weight_files(tmp_path)


def test_a_missing_extractor_names_its_file(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no preprocessor_config\.json"):
        load_extractor(ASTFeatureExtractor, folder)


def test_a_broken_extractor_file_is_an_error(folder):
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json .* cannot be used"):
        load_extractor(ASTFeatureExtractor, folder)


def test_progress_bars_are_put_back_as_they_were():
    logging.enable_progress_bar()  # whatever ran before
    with quiet_progress():
        assert not logging.is_progress_bar_enabled()
        with quiet_progress():
            pass
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()


def test_a_smaller_configuration_leaves_weights_unread_without_a_word(folder, capfd):
    config = ASTModel.config_class.from_pretrained(folder)
    config.num_hidden_layers = 1
    model = load_weights(ASTModel, folder, torch.float32, config)
    whole = load_weights(ASTModel, folder, torch.float32)
    assert len(model.state_dict()) < len(whole.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])
    assert "UNEXPECTED" not in "".join(capfd.readouterr())

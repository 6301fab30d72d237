"""Folders for a hub: whole ones pass, each kind of damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composite_store import save_composite
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import hash_file
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.card import ModelCard, Score, write_card
from speechadapt.models.hub_folder import check_adapter, check_model


@pytest.fixture
def base(tiny_folder: Callable[[str], Path]) -> Encoder:
    return load_encoder(tiny_folder("whisper"))


@pytest.fixture
def model(tmp_path: Path, tiny_folder: Callable[[str], Path]) -> Path:
    """A model folder with a card."""
    folder = Path(shutil.copytree(tiny_folder("whisper"), tmp_path / "model"))
    write_card(
        folder,
        ModelCard(
            "tiny", "Nothing.", "whisper", 1, "MIT", "whisper_ar", ("en",),
            scores=(Score("digits/test", "wer", 0.5),),
            weights_sha256=hash_file(folder / "model.safetensors"),
        ),
    )  # fmt: skip
    return folder


def test_an_adapter_is_known_with_its_base(base: Encoder, tmp_path: Path) -> None:
    folder = store.save(attach(base, "lora", config={"rank": 1}), tmp_path / "one")
    head = check_adapter(folder)
    assert (head.name, head.base, head.tags[-1]) == ("one", "whisper", "lora")
    assert check_adapter(folder, base) == head


def test_an_adapter_of_another_base_names_its_own(
    base: Encoder, tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    folder = store.save(attach(base, "lora", config={"rank": 1}), tmp_path / "one")
    with pytest.raises(CheckpointError, match=r"trained on whisper \(whisper\), this encoder is"):
        check_adapter(folder, load_encoder(tiny_folder("w2v_bert")))
    other = load_encoder(tiny_folder("whisper"))
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(CheckpointError, match=r"trained on whisper .* with the weights"):
        check_adapter(folder, other)


def test_a_composition_needs_its_parts_as_they_were(base: Encoder, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        handle = attach(base, "lora", name=name, config={"rank": 1}, activate=False)
        with torch.no_grad():
            for parameter in handle.parameters():
                parameter.fill_(0.1 + seed)
        store.save(handle, tmp_path / name)
    compose(base, "average(a, b)")
    save_composite(base, "average(a, b)", tmp_path / "whole", bundle=True)
    head = check_adapter(tmp_path / "whole", base)
    assert head.tags[-1] == "composition"
    assert "`average(a, b)`" in (tmp_path / "whole" / "README.md").read_text()
    save_composite(base, "average(a, b)", tmp_path / "loose")
    with pytest.raises(CheckpointError, match=r"refers to a, b, which lie elsewhere\. .* --bundle"):
        check_adapter(tmp_path / "loose")
    shutil.copy(tmp_path / "b" / store.WEIGHTS, tmp_path / "whole" / "parts" / "a" / store.WEIGHTS)
    with pytest.raises(CheckpointError, match="is another adapter than when the composition"):
        check_adapter(tmp_path / "whole")


def test_other_folders_are_no_adapters(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"its adapter_config\.json cannot be used"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="of another tool"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is an index of adapters"):
        check_adapter(tmp_path)


def test_a_models_card_becomes_its_head(model: Path) -> None:
    fields = check_model(model).fields()
    assert fields["license"] == "mit"
    assert fields["language"] == ["en"]
    assert fields["tags"] == ["speech", "whisper", "whisper_ar"]
    assert fields["model-index"][0]["results"][0]["metrics"][0]["value"] == 50.0
    (model / "card.json").unlink()
    assert check_model(model).tags == ("speech", "whisper")


def test_weights_other_than_the_card_says_are_refused(model: Path) -> None:
    save_file({"a": torch.zeros(2)}, model / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has other weights than card\.json says"):
        check_model(model)


def test_damaged_and_missing_weights_are_named(model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match=r"'.*model\.safetensors' cannot be read as safetens"):
        check_model(model)
    path.write_bytes(whole)
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors' cannot be read"):
        check_model(model)
    index.unlink()
    save_file({}, path)
    with pytest.raises(CheckpointError, match="holds no tensor"):
        check_model(model)
    path.unlink()
    with pytest.raises(CheckpointError, match="holds no safetensors"):
        check_model(model)
    (model / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is missing or names no model_type"):
        check_model(model)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach, attachments
from speechadapt.adapters.interop import formats
from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.encoders.catalog import load_encoder

DATA = Path(__file__).parents[3] / "data"
PEFT = DATA / "peft" / "ast_4_57"
TinyFolder = Callable[[str], Path]


def test_each_folder_is_told_apart(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    assert formats.detect(PEFT / "adapter") == "peft"
    assert formats.detect(DATA / "adapterhub" / "lora") == "adapterhub"
    (tmp_path / "adapter.deu.safetensors").touch()
    assert formats.detect(tmp_path) == "mms"
    assert formats.detect(tmp_path / "adapter.deu.safetensors") == "mms"
    encoder = load_encoder(tiny_folder("whisper"))
    store.save(attach(encoder, "lora"), tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"is an adapter of this package\. Load it as it is"):
        formats.detect(tmp_path / "own")
    (tmp_path / "own" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"of none of the tools that can be read \(peft, ada"):
        formats.detect(tmp_path / "own")


def test_converted_folder_loads_with_its_head_and_gives_the_same_frames(tmp_path: Path) -> None:
    encoder = load_encoder(PEFT / "base")
    foreign = formats.read(PEFT / "adapter", encoder)
    formats.convert(encoder, foreign, tmp_path / "ours")
    assert attachments(encoder) == {}
    fresh = load_encoder(PEFT / "base")
    handle = store.load(fresh, tmp_path / "ours")
    golden = load_file(PEFT / "golden.safetensors")
    with torch.no_grad():
        got = fresh.double().tokens(golden["spectrogram"].double())  # type: ignore[operator]
    assert (got - golden["adapted"]).abs().max() <= 1e-6
    assert handle.notes["training"]["imported"]["format"] == "peft"
    head = store.read(tmp_path / "ours").head
    assert sorted(head) == sorted(foreign.head)
    assert all(torch.equal(head[key], foreign.head[key]) for key in head)


def test_failed_conversion_leaves_encoder_and_disk_alone(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("ast"))
    foreign = formats.read(PEFT / "adapter", encoder)
    with pytest.raises(CheckpointError, match="made for another encoder"):
        formats.convert(encoder, foreign, tmp_path / "ours")
    assert attachments(encoder) == {}
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("form", ["peft", "adapterhub"])
def test_each_format_is_written_and_read_back(
    form: str, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    handle = attach(encoder, "lora", config={"rank": 2, "alpha": 4.0}, roles=["attn.q"])
    formats.write(handle, tmp_path, form)
    assert formats.detect(tmp_path) == form
    read = formats.read(tmp_path, encoder)
    assert read.roles == ("layer.0.attn.q", "layer.1.attn.q")
    assert read.config["rank"] == 2


def test_unknown_formats_are_refused(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    with pytest.raises(CatalogError, match=r"to import is called 'pefd'\. Did you mean peft"):
        formats.read(PEFT / "adapter", encoder, "pefd")
    with pytest.raises(CatalogError, match=r"to export is called 'onnx'\. On offer: adapterhub"):
        formats.write(attach(encoder, "lora"), tmp_path, "onnx")

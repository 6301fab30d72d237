from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.composite_store import fingerprint
from speechadapt.adapters.handle import attachments
from speechadapt.adapters.packed import file_tensors
from speechadapt.core.errors import CheckpointError


def test_a_file_holds_less_where_the_method_packs(load, move) -> None:
    encoder = load()
    plain = attach(encoder, "parallel", name="plain")
    assert file_tensors(plain).keys() == plain.module.tensors().keys()
    bits = attach(encoder, "low_bit", name="bits", train_norms="adapted")
    held = file_tensors(bits)
    assert "layer.0.ffn:packed.codes" in held
    assert not any("original" in key for key in held)
    norms = [key for key in bits.module.tensors() if ".norm." in key.partition(":")[0]]
    assert norms
    assert set(norms) < held.keys()


@pytest.mark.parametrize("method", ["sparse", "mosa", "low_bit"])
def test_a_packed_adapter_is_the_same_on_disk(method: str, load, move, tmp_path) -> None:
    handle = attach(load(), method, name="own", config={"settings": {"bottleneck": 3}})
    move(handle)
    folder = store.save(handle, tmp_path / "own")
    assert fingerprint(store.read(folder)) == fingerprint(handle)
    again = store.load(load(), folder)
    assert fingerprint(again) == fingerprint(handle)


def test_a_damaged_packed_file_leaves_the_encoder_as_it_was(load, tmp_path) -> None:
    folder = store.save(attach(load(), "low_bit", name="own"), tmp_path / "own")
    tensors = load_file(folder / store.WEIGHTS)
    tensors["layer.1.ffn:packed.codes"] = torch.zeros(3, dtype=torch.uint8)
    save_file(tensors, folder / store.WEIGHTS)
    encoder = load()
    with pytest.raises(CheckpointError, match=r"'layer\.1\.ffn', but: .* Save it again\."):
        store.load(encoder, folder)
    assert not attachments(encoder)

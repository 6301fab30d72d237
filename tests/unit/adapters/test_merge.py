from __future__ import annotations

import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, WhisperModel

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.handle import base_of
from speechadapt.adapters.merge import merge, merge_to_folder, unmerge
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError, SiteError
from speechadapt.encoders.catalog import load_encoder


@torch.no_grad()
def frames(encoder, clips):
    return encoder.encode(clips)[0]


def bits(encoder):
    return {key: tensor.clone() for key, tensor in encoder.model.state_dict().items()}


def test_merged_attachments_come_out_in_any_order(load, clips, move):
    encoder = load()
    start = bits(encoder)
    alone = {}
    for name in ("first", "second"):
        move(attach(encoder, "lora", name=name))
        alone[name] = frames(encoder, clips)
    for name in ("first", "second"):
        merge(encoder, name)
    unmerge(encoder, "first")
    with active(encoder, None):
        torch.testing.assert_close(frames(encoder, clips), alone["second"], rtol=0, atol=1e-5)
    remove(encoder, "second")
    remove(encoder, "first")
    assert all(torch.equal(tensor, start[key]) for key, tensor in bits(encoder).items())


def test_the_base_that_was_trained_on_is_remembered_when_merging(load, move):
    encoder = load()
    handle = attach(encoder, "lora")
    move(handle)
    before = base_of(encoder)
    merge(encoder, "lora")
    assert handle.base == before
    assert base_of(encoder)["fingerprint"] != before["fingerprint"]
    unmerge(encoder, "lora")
    assert base_of(encoder) == before


def test_what_cannot_be_merged_is_refused_and_changes_nothing(load, move):
    encoder = load()
    start = bits(encoder)
    attach(encoder, "parallel")
    with pytest.raises(ConfigError, match="'parallel' was to be merged, but parallel changes more"):
        merge(encoder, "parallel")
    handle = attach(encoder, "lora", name="biased", config={"bias": True}, roles=["attn.q"])
    object.__setattr__(handle.module.adapters()[0], "scale", float("nan"))
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        merge(encoder, "biased")
    with pytest.raises(CatalogError, match="no adapter called 'x'"):
        merge(encoder, "x")
    assert all(torch.equal(tensor, start[key]) for key, tensor in bits(encoder).items())
    assert not handle.merged


def test_a_change_without_a_place_is_refused(load):
    encoder = load()
    handle = attach(encoder, "lora", config={"bias": True}, roles=["attn.q"])
    encoder.model.layers[1].self_attn.q_proj.bias = None
    with pytest.raises(SiteError, match=r"bias of 'layers\.1\.self_attn\.q_proj' .*has none"):
        merge(encoder, "lora")
    assert not handle.merged


def test_a_module_of_low_precision_is_changed_in_float32(load, move):
    encoder = load(dtype="bfloat16")
    handle = attach(encoder, "lora", roles=["attn.q"], dtype=torch.float32)
    move(handle)
    weight = encoder.model.layers[0].self_attn.q_proj.weight
    before = weight.float()
    change = handle.module.adapters()[0].delta(encoder.model.layers[0].self_attn.q_proj).weight
    merge(encoder, "lora")
    assert torch.equal(weight, (before + change).to(torch.bfloat16))


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_a_merged_folder_is_an_ordinary_model(load, clips, move, family, tmp_path):
    encoder = load(family)
    handle = attach(encoder, "lora", train_norms="all")
    move(handle)
    on, start = frames(encoder, clips), bits(encoder)
    folder = merge_to_folder(encoder, "lora", tmp_path / "merged")
    assert all(torch.equal(tensor, start[key]) for key, tensor in bits(encoder).items())
    assert not handle.merged
    merged = load_encoder(folder, padding="native")
    torch.testing.assert_close(frames(merged, clips), on, rtol=0, atol=3e-5)
    AutoModel.from_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not any("adapter" in key or "lora" in key for key in file.keys())
    assert (folder / "preprocessor_config.json").is_file()


def test_what_is_not_the_encoder_goes_along_unchanged(load, move, tmp_path, tiny_folder):
    encoder = load()
    move(attach(encoder, "lora"))
    folder = merge_to_folder(encoder, "lora", tmp_path / "merged")
    before, after = (WhisperModel.from_pretrained(one) for one in (tiny_folder("whisper"), folder))
    old, new = before.decoder.state_dict(), after.decoder.state_dict()
    assert all(torch.equal(new[key], tensor) for key, tensor in old.items())
    changed = {
        key
        for key, tensor in before.encoder.state_dict().items()
        if not torch.equal(after.encoder.state_dict()[key], tensor)
    }
    assert changed == {f"{site.write}.weight" for site in encoder.select(["attn.*", "ffn.*"])}


def test_a_merged_folder_is_not_written_over_another(load, move, tmp_path, tiny_folder):
    encoder = load()
    move(attach(encoder, "lora"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is not empty"):
        merge_to_folder(encoder, "lora", tmp_path / "full")
    with pytest.raises(CheckpointError, match="was taken for the base of a WhisperEncoder"):
        merge_to_folder(encoder, "lora", tmp_path / "new", base=tiny_folder("ast"))
    encoder.source = None
    with pytest.raises(ConfigError, match="was built in memory"):
        merge_to_folder(encoder, "lora", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_others_merged_in_memory_do_not_slip_into_a_folder(load, move, tmp_path):
    encoder = load()
    for name in ("first", "second"):
        move(attach(encoder, "lora", name=name))
    merge(encoder, "first")
    with pytest.raises(ConfigError, match="are merged in memory"):
        merge_to_folder(encoder, "second", tmp_path / "new")


def test_the_bases_card_and_scores_do_not_go_along(load, move, tmp_path, tiny_folder):
    base = tmp_path / "base"
    shutil.copytree(tiny_folder("whisper"), base)
    for name in ("README.md", "card.json", "training_ids.txt"):
        (base / name).write_text("of the base")
    encoder = load()
    move(attach(encoder, "lora"))
    folder = merge_to_folder(encoder, "lora", tmp_path / "merged", base=base)
    assert not (folder / "README.md").exists()
    assert not (folder / "card.json").exists()
    assert (folder / "training_ids.txt").read_text() == "of the base"

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.handle import attachments
from speechadapt.adapters.merge import merge
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.tiny import write_tiny


@torch.no_grad()
def frames(encoder, clips):
    return encoder.encode(clips)[0]


@pytest.fixture
def saved(load, move, tmp_path) -> Path:
    encoder = load()
    handle = attach(encoder, "lora", name="german", roles=["attn.q", "conv.pw1?"])
    move(handle)
    return store.save(handle, tmp_path / "german", scores={"wer": 0.25}, training={"hours": 2.5})


def edit(folder: Path, **values: object) -> None:
    path = folder / store.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / store.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / store.WEIGHTS)


def refused(load, folder: Path, message: str, error: type[Exception] = CheckpointError) -> None:
    encoder = load()
    with pytest.raises(error, match=message):
        store.load(encoder, folder)
    assert not attachments(encoder)
    assert not encoder.followers
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in encoder.modules())


def test_a_folder_holds_three_files_and_only_the_adapters_tensors(saved):
    assert sorted(one.name for one in saved.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    with safe_open(saved / store.WEIGHTS, "pt") as file:
        keys = sorted(file.keys())
    assert keys == [f"layer.{i}.attn.q:change.{part}" for i in (0, 1) for part in ("down", "up")]


def test_the_config_says_what_the_adapter_is_and_belongs_to(saved):
    details = json.loads((saved / store.CONFIG).read_text())
    assert details["method"] == "lora"
    assert details["config"]["rank"] == 8
    assert details["roles"] == ["attn.q", "conv.pw1?"]
    assert details["sites"] == ["layer.0.attn.q", "layer.1.attn.q"]
    assert details["base"]["family"] == "whisper"
    assert details["base"]["name"] == "whisper"  # of a folder the name alone, no machine's path
    assert details["base"]["revision"] == "local"
    assert len(details["base"]["fingerprint"]) == 64
    assert details["versions"].keys() == {"speechadapt", "torch", "transformers"}
    assert details["scores"] == {"wer": 0.25}
    card = (saved / "README.md").read_text()
    assert "wer: 0.25" in card
    assert "hours: 2.5" in card


def test_reading_needs_no_encoder(saved):
    stored = store.read(saved)
    assert stored.method == "lora"
    assert stored.num_parameters == 2 * 8 * 64
    assert stored.details["training"] == {"hours": 2.5}


def test_a_loaded_adapter_brings_its_notes_and_can_be_saved_again(load, saved, clips, tmp_path):
    encoder = load()
    handle = store.load(encoder, saved)
    assert handle.name == "german"
    assert handle.notes["scores"] == {"wer": 0.25}
    assert not handle.module.training
    again = store.save(handle, tmp_path / "again")
    for name in (store.CONFIG, store.WEIGHTS):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_several_saved_adapters_can_be_loaded_side_by_side(load, saved, clips):
    encoder = load()
    for name in ("one", "two"):
        store.load(encoder, saved, name=name)
    assert torch.equal(frames(encoder, clips), frames(encoder, clips))
    with pytest.raises(ConfigError, match="called 'two' already"):
        store.load(encoder, saved, name="two")
    remove(encoder, "one")
    assert list(attachments(encoder)) == ["two"]


def test_a_head_goes_along_under_its_own_prefix(load, move, tmp_path):
    handle = attach(load(), "lora")
    head = {"linear.weight": torch.randn(5, 32)}
    folder = store.save(handle, tmp_path / "x", head=head, head_config={"kind": "ctc"})
    stored = store.read(folder)
    assert torch.equal(stored.head["linear.weight"], head["linear.weight"])
    assert stored.details["head"] == {"kind": "ctc"}
    assert not any(key.startswith("head:") for key in stored.tensors)
    encoder = load()
    assert store.load(encoder, folder).notes["head"] == {"kind": "ctc"}


def test_an_adapter_saved_after_merging_belongs_to_the_base_before(load, saved, clips, tmp_path):
    encoder = load()
    handle = store.load(encoder, saved)
    on = frames(encoder, clips)
    merge(encoder, "german")
    folder = store.save(handle, tmp_path / "merged")
    fresh = load()
    store.load(fresh, folder)
    assert torch.equal(frames(fresh, clips), on)


def test_other_weights_are_refused_unless_asked_for(load, saved, tmp_path, clips):
    other = load_encoder(write_tiny("whisper", tmp_path / "other", seed=5))
    with pytest.raises(CheckpointError, match=r"trained on whisper \(whisper\) with the weights"):
        store.load(other, saved)
    store.load(other, saved, any_base=True)


def test_one_changed_weight_makes_another_base(load, saved):
    encoder = load()
    assert len(encoder.fingerprint()) == 64
    with torch.no_grad():
        encoder.model.layers[0].fc1.weight[0, 0] += 1e-6
    with pytest.raises(CheckpointError, match="Load the base it names"):
        store.load(encoder, saved)


def test_another_family_is_refused_by_name(load, saved):
    with pytest.raises(
        CheckpointError, match=r"this encoder is ast \(ast\). Load it on an encoder"
    ):
        store.load(load("ast"), saved, any_base=True)


def test_the_same_file_in_another_precision_is_the_same_base(saved, load, clips):
    encoder = load(dtype="bfloat16")
    handle = store.load(encoder, saved)
    assert next(handle.parameters()).dtype == torch.bfloat16
    assert frames(encoder, clips).dtype == torch.bfloat16


def test_weights_kept_in_half_precision_are_the_same_base_loaded_in_full(tmp_path, move, clips):
    half = load_encoder(write_tiny("ast", tmp_path / "full"), dtype="float16")
    half.model.save_pretrained(tmp_path / "half")
    half.extractor.save_pretrained(tmp_path / "half")
    handle = attach(half, "lora")
    move(handle)
    folder = store.save(handle, tmp_path / "adapter")
    full = load_encoder(tmp_path / "half")
    store.load(full, folder, name="x")
    with active(full, "x"):
        assert bool(frames(full, clips).isfinite().all())


def test_weights_that_are_cut_short_are_refused(load, saved):
    path = saved / store.WEIGHTS
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:length])
        refused(load, saved, "cannot be read as safetensors")


def test_not_a_number_is_refused(load, saved):
    rewrite(saved, lambda tensors: tensors["layer.1.attn.q:change.up"].fill_(float("inf")))
    refused(load, saved, r"hold NaN or infinity, first 'layer\.1\.attn\.q:change\.up'")


def test_missing_and_extra_tensors_are_named(load, saved):
    rewrite(saved, lambda tensors: tensors.pop("layer.0.attn.q:change.up"))
    refused(load, saved, r"lacks 1, first 'layer\.0\.attn\.q:change\.up'\. Save")
    rewrite(saved, lambda tensors: tensors.update({"encoder.weight": torch.zeros(2)}))
    refused(load, saved, r"lacks 1, .* and has 1 too many, first 'encoder\.weight'")


def test_a_tensor_of_another_shape_is_refused(load, saved):
    key = "layer.0.attn.q:change.up"
    rewrite(saved, lambda tensors: tensors.update({key: torch.zeros(32, 4)}))
    refused(load, saved, r"is torch\.float32 \[32, 4\], but the encoder .* want .*\[32, 8\]")
    rewrite(saved, lambda tensors: tensors.update({key: torch.zeros(32, 8, dtype=torch.int64)}))
    refused(load, saved, r"is torch\.int64 \[32, 8\]")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "peft"}, "is of another tool"),
        ({"format_version": 2}, "format version 2; up to 1 can be read"),
        ({"method_version": 9}, "version 9 of the method 'lora', which is at version 1 here"),
        ({"method": None}, "should say its method, but that is None"),
        ({"config": [1]}, r"should say its config, but that is \[1\]"),
        ({"base": {"family": "whisper", "fingerprint": "0" * 64}}, "with the weights 00000000"),
        ({"norm_sites": ["layer.0.norm.attn"]}, "was saved with the norms"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(load, saved, values, message):
    edit(saved, **values)
    refused(load, saved, message)


def test_settings_out_of_range_in_a_file_are_refused(load, saved):
    edit(saved, config={"rank": -1})
    refused(load, saved, r"adapter\.rank must be 1 or more", ConfigError)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\x00"])
def test_a_config_that_is_no_json_object_is_refused(load, saved, text):
    (saved / store.CONFIG).write_text(text)
    refused(load, saved, r"adapter_config\.json")


def test_a_pickle_is_not_opened(load, saved):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (saved / "ran",))

    torch.save({"x": Hostile()}, saved / "adapter_model.bin")
    (saved / store.WEIGHTS).unlink()
    refused(load, saved, r"holds no adapter_model\.safetensors")
    (saved / "adapter_model.bin").rename(saved / store.WEIGHTS)
    refused(load, saved, "cannot be read as safetensors")
    assert not (saved / "ran").exists()


def test_a_folder_that_is_none_is_refused(load, tmp_path):
    refused(load, tmp_path / "nothing", r"its adapter_config\.json cannot be used")


def test_an_adapter_with_infinite_values_is_not_saved(load, tmp_path):
    handle = attach(load(), "lora")
    with torch.no_grad():
        next(handle.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"adapter 'lora' should hold numbers.*Nothing was"):
        store.save(handle, tmp_path / "x")
    assert not (tmp_path / "x").exists()

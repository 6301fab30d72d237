from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    ASTForAudioClassification,
    Wav2Vec2BertForCTC,
    WhisperForConditionalGeneration,
)

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.catalog import method, method_names
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.interop import peft as ours
from speechadapt.adapters.interop import peft_export
from speechadapt.adapters.interop.foreign import install
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder

pytestmark = [
    # peft asks transformers by a name that is on its way out
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # a bias that is exported as zero, because its module has none
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
]
CASES = [(name, "whisper") for name in sorted(method_names()) if method(name).merges]
CASES += [("lora", "ast"), ("native_length", "ast"), ("hydra_heads", "w2v_bert")]

FULL: dict[str, Any] = {
    "whisper": WhisperForConditionalGeneration,
    "w2v_bert": Wav2Vec2BertForCTC,
    "ast": ASTForAudioClassification,
}
INNER = {
    "whisper": "model.encoder",
    "w2v_bert": "wav2vec2_bert",
    "ast": "audio_spectrogram_transformer",
}
TinyFolder = Callable[[str], Path]


def trained(encoder: Encoder, name: str, **options: Any) -> Handle:
    handle = attach(encoder, name, name="trained", **{"config": method(name).tiny, **options})
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return handle


def architecture(family: str) -> str:
    return str(FULL[family].__name__)


@torch.no_grad()
def loaded_by_peft(folder: Path, family: str, adapter: Path) -> nn.Module:
    extra = {"vocab_size": 8} if family == "w2v_bert" else {}
    model = FULL[family].from_pretrained(folder, **extra).eval()
    adapted = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    for module in adapted.modules():
        stride = getattr(getattr(module, "base_layer", None), "stride", None)
        if stride is not None:
            module.stride = stride  # Whisper's encoder asks its stem for it
    inner: nn.Module = adapted.base_model.model.get_submodule(INNER[family])
    return inner


@torch.no_grad()
def frames(encoder: Encoder, signal: Any, model: nn.Module | None = None) -> torch.Tensor:
    own = encoder.model
    encoder.model = model or own
    try:
        return encoder(*encoder.extract([signal(16000), signal(9000, seed=1)]))[0]
    finally:
        encoder.model = own


@pytest.mark.parametrize(("name", "family"), CASES)
def test_peft_computes_the_same_from_what_is_exported(
    name: str, family: str, tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder(family))
    handle = trained(encoder, name)
    peft_export.write(handle, tmp_path, architecture(family))
    wanted = frames(encoder, signal)
    with active(encoder, None):
        assert (frames(encoder, signal) - wanted).abs().max() > 1e-3
    got = frames(encoder, signal, loaded_by_peft(tiny_folder(family), family, tmp_path))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FULL))
def test_lora_with_norms_and_every_kind_of_site_round_trips(
    family: str, tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder(family))
    sites = {
        "whisper": ["attn.q", "ffn.up", "stem.conv.*"],
        "w2v_bert": ["attn.*", "conv.pw1"],
        "ast": ["attn.v", "ffn.down"],
    }[family]
    config = {"rank": 2, "alpha": 3.0, "rank_stabilised": True}
    handle = trained(encoder, "lora", config=config, roles=sites, train_norms="all")
    wanted = frames(encoder, signal)
    peft_export.write(handle, tmp_path, architecture(family))
    got = frames(encoder, signal, loaded_by_peft(tiny_folder(family), family, tmp_path))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)
    before = {key: value.clone() for key, value in handle.module.tensors().items()}
    remove(encoder, "trained")
    back = install(encoder, ours.read(tmp_path, encoder), "back")
    torch.testing.assert_close(frames(encoder, signal), wanted, rtol=1e-6, atol=2e-6)
    for key, value in back.module.tensors().items():
        torch.testing.assert_close(value, before[key], rtol=1e-5, atol=1e-6)


def test_pissa_leaves_at_twice_its_rank_for_the_original_base(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    peft_export.write(trained(encoder, "pissa"), tmp_path, architecture("whisper"))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["r"] == 2 * method("pissa").tiny.rank
    assert settings["init_lora_weights"] is True


def test_product_of_more_columns_than_the_weight_is_stored_at_full_rank(
    tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    handle = trained(encoder, "pissa", config={"rank": 20}, roles=["attn.q"])
    wanted = frames(encoder, signal)
    peft_export.write(handle, tmp_path, architecture("whisper"))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 32
    got = frames(encoder, signal, loaded_by_peft(tiny_folder("whisper"), "whisper", tmp_path))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_head_goes_along_as_module_to_save(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    head = {"lm_head.weight": torch.randn(8, 32), "lm_head.bias": torch.randn(8)}
    peft_export.write(trained(encoder, "lora"), tmp_path, architecture("w2v_bert"), head)
    model = Wav2Vec2BertForCTC.from_pretrained(tiny_folder("w2v_bert"), vocab_size=8)
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path))
    with torch.no_grad():
        states = torch.randn(1, 3, 32)
        wanted = states @ head["lm_head.weight"].T + head["lm_head.bias"]
        torch.testing.assert_close(adapted.base_model.model.lm_head(states), wanted)
    assert sorted(ours.read(tmp_path, encoder).head) == [
        "base_model.model.lm_head.bias",
        "base_model.model.lm_head.weight",
    ]


def test_depthwise_kernel_leaves_as_a_whole_module(
    tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    roles = ["attn.q", "conv.depthwise"]
    handle = trained(encoder, "lora", config={"rank": 2, "depthwise_rank": 1}, roles=roles)
    peft_export.write(handle, tmp_path, architecture("w2v_bert"))
    wanted = frames(encoder, signal)
    got = frames(encoder, signal, loaded_by_peft(tiny_folder("w2v_bert"), "w2v_bert", tmp_path))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_paths_follow_the_class_the_folder_is_for(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    assert peft_export.encoder_path(encoder) == "model.encoder."
    assert peft_export.encoder_path(encoder, "WhisperModel") == "encoder."
    assert peft_export.encoder_path(encoder, "WhisperEncoder") == ""
    handle = trained(encoder, "lora", roles=["attn.q"])
    peft_export.write(handle, tmp_path)
    assert sorted(load_file(tmp_path / "adapter_model.safetensors"))[0] == (
        "base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    )
    with pytest.raises(ConfigError, match=r"'BertModel' was asked for, which is no transformers"):
        peft_export.encoder_path(encoder, "BertModel")


def test_methods_that_are_no_change_of_weights_are_refused(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    with pytest.raises(ConfigError, match=r"its method 'houlsby' does not amount to a change of"):
        peft_export.write(trained(encoder, "houlsby"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_merged_adapter_is_refused(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    from speechadapt.adapters.merge import merge

    encoder = load_encoder(tiny_folder("whisper"))
    handle = trained(encoder, "lora")
    merge(encoder, "trained")
    with pytest.raises(ConfigError, match=r"is merged into the encoder"):
        peft_export.write(handle, tmp_path)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2AttnAdapterLayer

from speechadapt.adapters.attach import active, attachments
from speechadapt.adapters.interop import mms
from speechadapt.adapters.interop.foreign import install
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.catalog import load_encoder

TinyFolder = Callable[[str], Path]
LAYERS, DIM, WIDTH = 2, 32, 6


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny wav2vec 2.0 with language adapters, in transformers' own classes."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=9,
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=40,
        conv_dim=(16,),
        conv_kernel=(10,),
        conv_stride=(5,),
        num_feat_extract_layers=1,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        adapter_attn_dim=WIDTH,
    )
    built = Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "adapter_layer" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def language_file(model: Any, folder: Path, language: str = "deu") -> Path:
    """Write what transformers publishes for one language."""
    tensors = {
        name: value.contiguous()
        for name, value in model.state_dict().items()
        if "adapter_layer" in name or name.startswith("lm_head")
    }
    path = folder / f"adapter.{language}.safetensors"
    save_file(tensors, path)
    return path


def test_file_is_what_transformers_calls_the_adapter(model: Any, tmp_path: Path) -> None:
    path = language_file(model, tmp_path)
    assert sorted(load_file(path)) == sorted(model._get_adapters())


@pytest.mark.parametrize("family", ["whisper", "ast", "w2v_bert"])
def test_imported_adapter_computes_the_layer_of_transformers(
    family: str, model: Any, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder(family))
    foreign = mms.read(language_file(model, tmp_path), encoder)
    handle = install(encoder, foreign, "deu")
    stream = 5 * torch.randn(3, 7, DIM)
    for index in range(LAYERS):
        theirs = model.wav2vec2.encoder.layers[index].adapter_layer
        assert isinstance(theirs, Wav2Vec2AttnAdapterLayer)
        ours = handle.module.by_role()[f"layer.{index}.end"]
        with torch.no_grad():
            wanted = stream + theirs(stream)
            got = ours.leave(stream, stream, Context())
        assert (got - wanted).abs().max() <= 1e-6
    assert sorted(foreign.head) == ["lm_head.bias", "lm_head.weight"]


def test_adapter_stands_where_the_layer_of_transformers_has_it(
    model: Any, tiny_folder: TinyFolder, tmp_path: Path, signal: Any
) -> None:
    """In wav2vec 2.0 and here alike, the layer's output is what goes in and what is added to."""
    layer = model.wav2vec2.encoder.layers[0]
    states = torch.randn(1, 11, DIM)
    with torch.no_grad():
        with_adapter = layer(states)
        with_adapter = with_adapter if isinstance(with_adapter, Tensor) else with_adapter[0]
        kept, layer.adapter_layer = layer.adapter_layer, None
        without = layer(states)
        without = without if isinstance(without, Tensor) else without[0]
        layer.adapter_layer = kept
        wanted = without + kept(without)
    torch.testing.assert_close(with_adapter, wanted)
    encoder = load_encoder(tiny_folder("whisper"))
    handle = install(encoder, mms.read(language_file(model, tmp_path), encoder), "deu")
    by_role = handle.module.by_role()
    seen: list[Tensor] = []
    hook = encoder.model.layer_norm.register_forward_pre_hook(
        lambda _, inputs: seen.append(*inputs)
    )
    with torch.no_grad():
        first = by_role["layer.0.end"].bottleneck.up
        first.weight.zero_()
        first.bias.zero_()
        inputs = encoder.extract([signal(16000)])
        encoder(*inputs)
        with active(encoder, None):
            encoder(*inputs)
        wanted = seen[1] + by_role["layer.1.end"].bottleneck(seen[1])
    hook.remove()
    torch.testing.assert_close(seen[0], wanted)
    assert not torch.equal(seen[0], seen[1])


def test_language_of_a_folder_is_chosen_by_name(
    model: Any, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    language_file(model, tmp_path, "deu")
    assert mms.read(tmp_path, encoder).notes["language"] == "deu"
    language_file(model, tmp_path, "fra")
    assert sorted(mms.languages(tmp_path)) == ["deu", "fra"]
    assert mms.read(tmp_path, encoder, "fra").notes["language"] == "fra"
    with pytest.raises(CheckpointError, match=r"no language was named\. On offer: deu, fra"):
        mms.read(tmp_path, encoder)
    with pytest.raises(CheckpointError, match=r"'frq' was asked for\. Did you mean fra"):
        mms.read(tmp_path, encoder, "frq")


def test_pickle_needs_to_be_asked_for(model: Any, tiny_folder: TinyFolder, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    path = language_file(model, tmp_path)
    torch.save(load_file(path), tmp_path / "adapter.fra.bin")
    with pytest.raises(CheckpointError, match=r"is a pickle, which is not read unasked"):
        mms.read(tmp_path, encoder, "fra")
    assert mms.read(tmp_path, encoder, "fra", allow_pickle=True).method == "mms"


def test_encoder_of_other_layers_or_width_is_refused(
    model: Any, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    path = language_file(model, tmp_path)
    weights = load_file(path)
    few = {name: value for name, value in weights.items() if "layers.1." not in name}
    save_file(few, tmp_path / "adapter.few.safetensors")
    with pytest.raises(CheckpointError, match=r"adapters for 1 layers, this whisper has 2"):
        mms.read(tmp_path / "adapter.few.safetensors", encoder)
    wide = {name: torch.zeros(48) if ".norm." in name else value for name, value in weights.items()}
    save_file(wide, tmp_path / "adapter.wide.safetensors")
    with pytest.raises(CheckpointError, match=r"made for another encoder: .* is \[48\] there"):
        install(encoder, mms.read(tmp_path / "adapter.wide.safetensors", encoder), "wide")
    assert attachments(encoder) == {}
    save_file({"other.weight": torch.ones(2)}, tmp_path / "adapter.odd.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 'other\.weight'\. Such a file holds adapter"):
        mms.read(tmp_path / "adapter.odd.safetensors", encoder)

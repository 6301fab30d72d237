from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ASTForAudioClassification,
    Wav2Vec2BertForCTC,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from speechadapt.adapters.attach import active, attachments
from speechadapt.adapters.interop import peft as ours
from speechadapt.adapters.interop.foreign import install
from speechadapt.core.errors import CheckpointError, SiteError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder

pytestmark = [
    # peft asks transformers by a name that is on its way out
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # peft takes the vectors of lora_bias for cut matrices
    pytest.mark.filterwarnings("ignore:Adapter 'default'"),
]

GOLDEN = Path(__file__).parents[3] / "data" / "peft" / "ast_4_57"
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
TARGETS = {
    "whisper": r".*encoder\.layers\.\d+\.(self_attn\.[qkv]_proj|fc1)|.*encoder\.conv[12]",
    "w2v_bert": ["linear_q", "output_dense", "pointwise_conv1"],
    "ast": ["q_proj", "o_proj", "fc2"],
}
NORM = {
    "whisper": "layers.1.final_layer_norm",
    "w2v_bert": "ffn1_layer_norm",
    "ast": "layernorm_after",
}
FAMILIES = sorted(FULL)
TinyFolder = Callable[[str], Path]


def with_peft(
    folder: Path, family: str, config: Any, out: Path, wrap: Any = None
) -> tuple[nn.Module, Encoder]:
    """Save a LoRA with random weights by peft; return peft's model and our encoder on its base."""
    extra = {"vocab_size": 8} if family == "w2v_bert" else {}
    model = (wrap or FULL[family]).from_pretrained(folder, **extra).eval()
    adapted = peft.get_peft_model(model, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(str(out), save_embedding_layers=False)
    return adapted, load_encoder(folder)


def inner(adapted: nn.Module, family: str) -> nn.Module:
    return adapted.base_model.model.get_submodule(INNER[family])


def features(encoder: Encoder, signal: Callable[..., torch.Tensor]) -> tuple[Any, Any]:
    inputs, lengths = encoder.extract([signal(16000), signal(9000, seed=1)])
    return inputs.double(), lengths


@torch.no_grad()
def theirs(adapted: nn.Module, encoder: Encoder, inputs: tuple[Any, Any]) -> torch.Tensor:
    """Run our wrapper around peft's modules, so that both see the same input the same way."""
    for module in adapted.modules():
        stride = getattr(getattr(module, "base_layer", None), "stride", None)
        if stride is not None:
            module.stride = stride  # Whisper's encoder asks its stem for it
    own = encoder.model
    encoder.model = adapted
    try:
        frames: torch.Tensor = encoder(*inputs)[0]
    finally:
        encoder.model = own
    return frames


@torch.no_grad()
def check_equal(adapted: nn.Module, encoder: Encoder, family: str, signal: Any) -> None:
    """Compare in double precision: what is left then is no rounding."""
    adapted.double()
    encoder.double()
    inputs = features(encoder, signal)
    wanted = theirs(inner(adapted, family), encoder, inputs)
    got = encoder(*inputs)[0]
    with active(encoder, None):
        base = encoder(*inputs)[0]
    assert (got - base).abs().max() > 1e-2, "the adapter does nothing, so the test shows nothing"
    assert (got - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_imported_lora_equals_peft(
    family: str, tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family])
    adapted, encoder = with_peft(tiny_folder(family), family, config, tmp_path)
    foreign = ours.read(tmp_path, encoder)
    install(encoder, foreign, "imported")
    check_equal(adapted, encoder, family, signal)


@pytest.mark.parametrize("family", FAMILIES)
def test_imported_patterns_bias_norms_and_root_scale_equal_peft(
    family: str, tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    biased = family != "w2v_bert"
    targets = {"whisper": ["q_proj", "fc1"], "w2v_bert": TARGETS[family], "ast": TARGETS[family]}
    first = targets[family][0]
    config = peft.LoraConfig(
        r=2,
        lora_alpha=5,
        use_rslora=True,
        lora_bias=biased,
        target_modules=targets[family],
        rank_pattern={first: 5},
        alpha_pattern={"layers.1.*": 11, first: 3},  # peft sorts them in the file
        modules_to_save=[NORM[family]],
    )
    wrap = WhisperModel if family == "whisper" else None
    adapted, encoder = with_peft(tiny_folder(family), family, config, tmp_path, wrap)
    foreign = ours.read(tmp_path, encoder, encoder_only=True)
    assert foreign.train_norms == "all"
    install(encoder, foreign, "imported")
    where = "encoder" if family == "whisper" else INNER[family]
    adapted.double()
    encoder.double()
    inputs = features(encoder, signal)
    wanted = theirs(adapted.base_model.model.get_submodule(where), encoder, inputs)
    assert (encoder(*inputs)[0] - wanted).abs().max() <= 1e-6


def test_bare_encoder_with_pissa_start_equals_peft(
    tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    config = peft.LoraConfig(
        r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=["q_proj", "fc2"]
    )
    encoder = load_encoder(tiny_folder("whisper"))
    bare = load_encoder(tiny_folder("whisper")).model
    adapted = peft.get_peft_model(bare, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(str(tmp_path))
    foreign = ours.read(tmp_path, encoder)
    assert foreign.method == "pissa"
    install(encoder, foreign, "imported")
    adapted.double()
    encoder.double()
    inputs = features(encoder, signal)
    wanted = theirs(adapted.base_model.model, encoder, inputs)
    # peft has rounded the start out of its base, in single precision
    torch.testing.assert_close(encoder(*inputs)[0].detach(), wanted, rtol=1e-5, atol=1e-5)


def test_folder_saved_under_transformers_4_57_gives_the_same_frames() -> None:
    encoder = load_encoder(GOLDEN / "base")
    golden = load_file(GOLDEN / "golden.safetensors")
    foreign = ours.read(GOLDEN / "adapter", encoder)
    install(encoder, foreign, "old")
    with torch.no_grad():
        encoder.double()
        got = encoder.tokens(golden["spectrogram"].double())  # type: ignore[operator]
        with active(encoder, None):
            base = encoder.tokens(golden["spectrogram"].double())  # type: ignore[operator]
    assert (base - golden["base"]).abs().max() <= 1e-6
    assert (got - golden["adapted"]).abs().max() <= 1e-6
    assert sorted(foreign.head) == [
        f"base_model.model.classifier.{part}"
        for part in ("dense.bias", "dense.weight", "layernorm.bias", "layernorm.weight")
    ]


def test_unknown_settings_are_ignored(tmp_path: Path) -> None:
    copy = changed(tmp_path, {"some_future_config": {"depth": 3}, "velora_config": None})
    assert ours.read(copy, load_encoder(GOLDEN / "base")).method == "lora"


def changed(tmp_path: Path, settings: dict[str, Any]) -> Path:
    copy = tmp_path / "changed"
    shutil.copytree(GOLDEN / "adapter", copy)
    path = copy / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return copy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "was saved with use_dora, which computes more"),
        ({"peft_type": "LOHA"}, "its peft_type is 'LOHA'. Only LORA"),
        ({"bias": "all"}, "bias='all': it changes biases of the base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora', which changed its base"),
        ({"layer_replication": [[0, 2]]}, "was saved with layer_replication"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    encoder = load_encoder(GOLDEN / "base")
    with pytest.raises(CheckpointError, match=said):
        ours.read(changed(tmp_path, settings), encoder)
    assert attachments(encoder) == {}


def test_decoder_part_is_refused_unless_left_out_on_purpose(
    tiny_folder: TinyFolder, signal: Any, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    adapted, encoder = with_peft(tiny_folder("whisper"), "whisper", config, tmp_path)
    with pytest.raises(CheckpointError, match=r"16 tensors.*|modules outside the encoder"):
        ours.read(tmp_path, encoder)
    foreign = ours.read(tmp_path, encoder, encoder_only=True)
    assert len(foreign.left_out) == 8
    handle = install(encoder, foreign, "imported")
    assert len(handle.notes["training"]["imported"]["left_out"]) == 8
    check_equal(adapted, encoder, "whisper", signal)


def test_adapter_of_another_family_is_refused(tiny_folder: TinyFolder) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    with pytest.raises(CheckpointError, match=r"none of its \d+ modules.*is one of this encoder"):
        ours.read(GOLDEN / "adapter", encoder)


def test_adapter_of_another_width_is_refused(tiny_folder: TinyFolder) -> None:
    encoder = load_encoder(tiny_folder("ast"))
    foreign = ours.read(GOLDEN / "adapter", encoder)
    with pytest.raises(CheckpointError, match=r"made for another encoder: .* is \[3, 16\] there"):
        install(encoder, foreign, "imported")
    assert attachments(encoder) == {}


def test_module_of_the_encoder_that_is_no_site_is_refused(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["linear_q", "feature_projection.projection"])
    _, encoder = with_peft(tiny_folder("w2v_bert"), "w2v_bert", config, tmp_path)
    with pytest.raises(SiteError, match=r"'feature_projection\.projection' of w2v_bert, where no"):
        ours.read(tmp_path, encoder, encoder_only=True)


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
def test_product_at_a_convolution_in_groups_is_refused(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=32, target_modules=["linear_q", "depthwise_conv"])
    _, encoder = with_peft(tiny_folder("w2v_bert"), "w2v_bert", config, tmp_path)
    with pytest.raises(CheckpointError, match=r"'layer\.0\.conv\.depthwise', a convolution in 32"):
        ours.read(tmp_path, encoder)


def test_factors_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    copy = changed(tmp_path, {})
    weights = load_file(copy / "adapter_model.safetensors")
    name = next(name for name in weights if "query.lora_B" in name)
    weights[name] = weights[name][:, :1].contiguous()
    save_file(weights, copy / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"lora_A of rank 3 for .* lora_B is \[16, 1\]"):
        ours.read(copy, load_encoder(GOLDEN / "base"))

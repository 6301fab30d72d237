from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speechadapt.adapters.interop.keys import Names, role_patterns
from speechadapt.core.errors import CheckpointError, SiteError
from speechadapt.encoders.catalog import families, load_encoder

TinyFolder = Callable[[str], Path]
WRAPPINGS = {
    "whisper": ("", "encoder.", "model.encoder.", "base_model.model.model.encoder."),
    "w2v_bert": ("", "wav2vec2_bert.", "base_model.model.wav2vec2_bert.", "module.own.speech."),
    "ast": ("", "audio_spectrogram_transformer.", "base_model.model.a.b."),
}


@pytest.mark.parametrize("family", sorted(families()))
def test_every_linear_and_convolution_is_found_in_any_wrapping(
    family: str, tiny_folder: TinyFolder
) -> None:
    encoder = load_encoder(tiny_folder(family))
    wanted = {
        site.write: role
        for role, site in encoder.sites.items()
        if site.read == site.write and site.kind in ("Linear", "Conv1d", "LayerNorm")
    }
    names = Names(encoder)
    for prefix in WRAPPINGS[family]:
        located = names.locate([prefix + path for path in wanted], "file")
        assert located.roles == {prefix + path: role for path, role in wanted.items()}
        assert located.outside == ()


def test_former_names_of_ast_are_found(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("ast")))
    old = "base_model.model.audio_spectrogram_transformer.encoder.layer.1."
    located = names.locate(
        [f"{old}attention.attention.query", f"{old}attention.output.dense", f"{old}output.dense"],
        "file",
    )
    assert list(located.roles.values()) == [
        "layer.1.attn.q",
        "layer.1.attn.out",
        "layer.1.ffn.down",
    ]


def test_norm_of_a_head_is_no_norm_of_the_encoder(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("ast")))
    inner = "audio_spectrogram_transformer."
    located = names.locate(
        [f"{inner}layers.0.mlp.fc1", f"{inner}layernorm", "classifier.layernorm"], "file"
    )
    assert located.roles[f"{inner}layernorm"] == "encoder"
    assert located.outside == ("classifier.layernorm",)


def test_decoder_of_the_same_build_is_outside(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("whisper")))
    located = names.locate(
        ["model.encoder.layers.0.fc1", "model.decoder.layers.0.fc1", "model.decoder.conv1"], "file"
    )
    assert located.roles == {"model.encoder.layers.0.fc1": "layer.0.ffn.up"}
    assert located.outside == ("model.decoder.layers.0.fc1", "model.decoder.conv1")


def test_two_encoders_of_the_same_build_are_refused(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("whisper")))
    with pytest.raises(CheckpointError, match=r"adapts 2 models of the same build, under 'a\.', "):
        names.locate(["a.layers.0.fc1", "b.layers.0.fc1"], "file")


def test_paths_of_another_model_are_refused(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("whisper")))
    with pytest.raises(CheckpointError, match=r"none of its 1 modules, such as 'h\.0\.c_attn'"):
        names.locate(["h.0.c_attn"], "file")


def test_layer_the_encoder_does_not_have_is_outside_not_misplaced(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("whisper")))
    located = names.locate(["encoder.layers.0.fc1", "encoder.layers.11.fc1"], "file")
    assert located.outside == ("encoder.layers.11.fc1",)


def test_module_without_a_site_is_refused(tiny_folder: TinyFolder) -> None:
    names = Names(load_encoder(tiny_folder("w2v_bert")))
    with pytest.raises(SiteError, match=r"'feature_projection\.projection' of w2v_bert, where no"):
        names.locate(["encoder.layers.0.self_attn.linear_q", "feature_projection.projection"], "f")


@pytest.mark.parametrize("family", sorted(families()))
def test_patterns_select_exactly_the_roles(family: str, tiny_folder: TinyFolder) -> None:
    encoder = load_encoder(tiny_folder(family))
    everywhere = [role for role in encoder.sites if role.endswith(("attn.q", "up"))]
    for roles in (everywhere, everywhere[:1], everywhere[1:], ["layer.1.end"]):
        patterns = role_patterns(encoder, roles)
        assert {site.role for site in encoder.select(patterns)} == set(roles)
    assert role_patterns(encoder, ["layer.0.attn.q", "layer.1.attn.q"]) == ("attn.q",)

"""The frozen models: two views on one set of weights, and a decoder that reads along."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.distil.models import (
    IGNORED,
    TextReader,
    base_sources,
    load_decoder,
    load_model,
    teacher_of,
)
from tests.tiny_tasks import whisper_folder


@pytest.fixture(scope="module")
def reader(base: Path) -> TextReader:
    """Return the reader of a tiny Whisper."""
    decoder = load_decoder(whisper_folder(base), "native", "en")
    assert isinstance(decoder, WhisperDecoder)
    return TextReader(decoder)


def test_a_model_comes_with_its_own_decoder(base: Path, tiny_folder) -> None:
    found = load_model(str(whisper_folder(base)), "native", "en")
    assert isinstance(found.decoder, WhisperDecoder)
    assert found.decoder.options.padding == "native"
    assert found.decoder.options.temperature == (0.0,)
    assert not any(tensor.requires_grad for tensor in found.decoder.parameters())
    assert load_model(str(tiny_folder("w2v_bert")), "full").decoder is None


def test_the_bundled_model_reads_by_its_head() -> None:
    found = load_model("mini-usm", "full")
    assert isinstance(found.decoder, CtcDecoder)
    assert found.margin_s > 0
    assert base_sources("mini-usm").keys() == {"base/model.safetensors"}
    assert base_sources("somebody/whisper", "decoder") == {}


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model folder: config\.json"):
        load_decoder(tmp_path, "full")


@torch.no_grad()
def test_the_teacher_shares_every_weight_and_never_sees_the_adapter(tiny_folder, signal) -> None:
    student = load_encoder(tiny_folder("whisper"), padding="native")
    clips = [signal(16000), signal(7000, 1)]
    alone, _ = load_encoder(tiny_folder("whisper"), padding="full").encode(clips)
    teacher = teacher_of(student)
    assert teacher.model is student.model
    handle = attach(student, "native_length", config={"rank": 2})
    for parameter in handle.parameters():
        parameter.add_(0.1)
    changed, _ = teacher.encode(clips)
    assert not torch.allclose(changed, alone, atol=1e-3)  # the hooks are on shared modules
    with active(student, None):
        assert torch.equal(teacher.encode(clips)[0], alone)


@pytest.mark.parametrize("family", ["w2v_bert", "ast"])
def test_an_encoder_without_paddings_teaches_itself(family: str, tiny_folder) -> None:
    encoder = load_encoder(tiny_folder(family), padding="native")
    assert teacher_of(encoder) is encoder


def test_the_window_is_its_own_teacher_too(tiny_folder) -> None:
    encoder = load_encoder(tiny_folder("whisper"), padding="full")
    assert teacher_of(encoder) is encoder


def test_tokens_are_the_text_and_its_end_after_the_prompt(reader: TextReader) -> None:
    inputs, labels = reader.tokens(["one", "go"])
    spelled = reader.vocabulary.tokenizer.encode(" one", add_special_tokens=False).ids
    end, first = reader.vocabulary.end, len(reader.prompt) - 1
    assert inputs[0].tolist() == [*reader.prompt, *spelled]
    assert labels[0].tolist() == [IGNORED] * first + [*spelled, end]
    assert (labels[1] != IGNORED).sum() == len(" go") + 1


def test_a_row_without_a_text_has_no_label(reader: TextReader) -> None:
    inputs, labels = reader.tokens(["", "one"])
    assert inputs[0, : len(reader.prompt)].tolist() == reader.prompt
    assert labels[0].unique().tolist() == [IGNORED]
    _, alone = reader.tokens([""])
    assert alone.unique().tolist() == [IGNORED]


def test_a_long_text_is_cut_to_the_decoders_places(reader: TextReader) -> None:
    inputs, labels = reader.tokens(["word " * 40])
    assert inputs.shape == labels.shape == (1, reader.most)


@torch.no_grad()
def test_native_logits_do_not_hang_on_what_lies_past_a_clip(reader: TextReader) -> None:
    frames = torch.randn(1, 12, 32)
    dirty = frames.clone()
    dirty[:, 7:] = 9.0
    inputs, _ = reader.tokens(["one"])
    lengths = torch.tensor([7])
    native = reader.logits(frames, lengths, inputs, "native")
    assert torch.allclose(native, reader.logits(dirty, lengths, inputs, "native"), atol=1e-5)
    cut = reader.logits(frames[:, :7], lengths, inputs, "full")
    assert torch.allclose(native, cut, atol=1e-4)
    whole = reader.logits(frames, lengths, inputs, "full")
    assert not torch.allclose(native, whole, atol=1e-2)


def test_a_decoder_of_several_languages_must_be_told_one(base: Path) -> None:
    decoder = load_decoder(whisper_folder(base), "full")
    assert isinstance(decoder, WhisperDecoder)
    with pytest.raises(ConfigError, match="language=en"):
        TextReader(decoder)

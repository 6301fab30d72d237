"""Recognisers whose adapter is told whom to listen to, or which words to expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechadapt.adapters.attach import attach
from speechadapt.core.errors import ConfigError, DataError
from speechadapt.models.build import load
from speechadapt.models.told import read_words, tell

CLIPS = [(np.random.default_rng(n).normal(size=20000) * 0.1).astype(np.float32) for n in range(3)]


@pytest.fixture
def told(ctc_folder: Path):
    """Load a recogniser with an attention to a memory that matters."""

    def make(method: str = "cross_attention", **config: object):
        recogniser = load(ctc_folder)
        torch.manual_seed(0)
        handle = attach(recogniser.encoder, method, name="adapter", config=config)
        with torch.no_grad():
            for tensor in handle.parameters():
                tensor.normal_(std=0.5)
        recogniser.encoder.eval()
        return recogniser

    return make


@pytest.fixture
def enrolments(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("ann.wav", "bob.wav")]
    for path, clip in zip(paths, CLIPS[1:], strict=True):
        soundfile.write(path, clip, 16000)
    return paths


def frames(recogniser) -> torch.Tensor:
    """Return what the encoder makes of a clip when the recogniser reads it."""
    seen = []
    hook = recogniser.encoder.register_forward_hook(lambda m, args, out: seen.append(out[0]))
    recogniser.decode_batch(CLIPS[:1] * 2)
    hook.remove()
    assert torch.equal(seen[0][0], seen[0][1])
    return seen[0][0]


def test_another_enrolment_gives_another_result_and_fingerprint(told, enrolments):
    recogniser = told()
    found, prints = [], []
    for path in (*enrolments, enrolments[0]):
        tell(recogniser, condition=path)
        found.append(frames(recogniser))
        prints.append(recogniser.fingerprint()["told"])
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.equal(found[0], found[2])
    assert prints[0] == prints[2] != prints[1]


def test_strength_zero_is_the_base(told, enrolments, ctc_folder):
    recogniser = told()
    tell(recogniser, condition=enrolments[0], strength=0.0)
    assert torch.equal(frames(recogniser), frames(load(ctc_folder)))


def test_words_are_read_from_a_file(told, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("view glass\n\n# a comment\nalexa\nalexa\n", encoding="utf-8")
    assert read_words(path) == ("view glass", "alexa")
    recogniser = told(memory="words")
    tell(recogniser, hot_words=path)
    with_words = frames(recogniser)
    path.write_text("jarvis\n", encoding="utf-8")
    tell(recogniser, hot_words=path)
    assert not torch.allclose(frames(recogniser), with_words, atol=1e-3)
    with pytest.raises(DataError, match="the words to expect cannot be read from"):
        read_words(tmp_path / "none.txt")


def test_what_does_not_fit_the_adapter_is_refused(told, enrolments, ctc_folder, tmp_path):
    with pytest.raises(ConfigError, match="must be told something to work by"):
        tell(told())
    with pytest.raises(ConfigError, match=r"with frames for a memory. Give condition instead"):
        tell(told(), hot_words=tmp_path / "words.txt")
    with pytest.raises(ConfigError, match=r"with words for a memory. Give hot_words instead"):
        tell(told(memory="words"), condition=enrolments[0])
    with pytest.raises(ConfigError, match="reads 'control' of every clip, which differs"):
        tell(told("control_track"), condition=enrolments[0])
    with pytest.raises(ConfigError, match="condition was given, but no adapter reads"):
        tell(load(ctc_folder), condition=enrolments[0])
    tell(load(ctc_folder))

from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.jobs.load import (
    LOADER,
    chosen_dtype,
    device_of,
    load_arguments,
    load_recogniser,
)
from speechadapt.jobs.options import TranscribeOptions


def test_a_hook_puts_another_recogniser_in_place(tmp_path: Path, monkeypatch):
    (tmp_path / "other.py").write_text(
        "class Other:\n"
        "    sample_rate, window_s, language = 8000, None, None\n"
        "    def fingerprint(self): return 1\n"
        "    def decode_batch(self, waveforms, languages=None): return []\n"
        "def make(options): return Other()\n"
    )
    monkeypatch.setenv(LOADER, f"{tmp_path}/other.py:make")
    assert load_recogniser(TranscribeOptions()).sample_rate == 8000


def test_a_hook_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(LOADER, "/nowhere.py:make")
    with pytest.raises(ConfigError, match=r"file\.py:function, got '/nowhere\.py:make'"):
        load_recogniser(TranscribeOptions())


def test_an_unknown_model_is_refused(monkeypatch):
    monkeypatch.delenv(LOADER, raising=False)
    with pytest.raises(CatalogError, match="no-such-model"):
        load_recogniser(TranscribeOptions(model="no-such-model", offline=True, device="cpu"))


def test_options_become_the_arguments_of_load():
    options = TranscribeOptions(
        device="cpu",
        beam_size=3,
        encoder_padding="native",
        decoder="ctc",
        option=("lm=x",),
        adapter="some/folder",
    )
    assert load_arguments(options) == {
        "device": "cpu",
        "dtype": "float32",
        "offline": False,
        "revision": None,
        "beam_size": 3,
        "word_timestamps": False,
        "lm": "x",
        "padding": "native",
        "decoder": "ctc",
        "adapter": "some/folder",
    }


def test_arithmetic_is_float32_unless_asked_otherwise():
    assert chosen_dtype("auto") == "float32"
    assert chosen_dtype("bfloat16") == "bfloat16"


def test_workers_take_accelerators_in_turn(monkeypatch):
    monkeypatch.delenv(LOADER, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device_of("auto", number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert device_of("cuda:1", 0) == "cuda:1"
    assert device_of("cpu", 1) == "cpu"


def test_a_real_tiny_model_decodes_through_the_same_door(tiny_recogniser, monkeypatch):
    import numpy as np

    monkeypatch.delenv(LOADER, raising=False)
    options = TranscribeOptions(model=str(tiny_recogniser), device="cpu", offline=True)
    recogniser = load_recogniser(options)
    waveform = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    found = recogniser.decode_batch([waveform, waveform[:8000]])
    assert len(found) == 2
    assert recogniser.window_s is not None

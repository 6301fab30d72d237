"""Settings that do not fit the models at hand are refused with what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.data.batch import BatchConfig
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.distil.config import (
    TaughtConfig,
    check_window,
    choose_score,
    make_reader,
)
from speechadapt.training.distil.models import TextReader, load_decoder
from tests.tiny_tasks import whisper_folder


def test_recordings_must_fit_the_smallest_window(tiny_folder) -> None:
    encoders = [load_encoder(tiny_folder(family)) for family in ("w2v_bert", "whisper")]
    check_window(TaughtConfig(batch=BatchConfig(max_s=2.0)), *encoders)
    check_window(TaughtConfig(), encoders[0])
    with pytest.raises(ConfigError, match=r"Set batch\.max_s=2 or less"):
        check_window(TaughtConfig(), *encoders)


def test_texts_are_read_where_a_weight_asks_for_it(base: Path) -> None:
    decoder = load_decoder(whisper_folder(base), "native", "en")
    assert make_reader(TaughtConfig(), decoder) is None
    assert isinstance(make_reader(TaughtConfig(text_weight=0.1), decoder), TextReader)


def test_a_decoder_that_reads_no_texts_along_is_refused() -> None:
    for decoder, found in ((None, "no decoder"), (CtcDecoder.tiny(8), "the decoder 'ctc'")):
        with pytest.raises(ConfigError, match=f"the base has {found}"):
            make_reader(TaughtConfig(decoder_weight=1.0), decoder)


def test_the_score_follows_what_can_be_scored() -> None:
    decoder = CtcDecoder.tiny(8)
    assert choose_score(TaughtConfig(), decoder) == "wer"
    assert choose_score(TaughtConfig(), None) == "loss"
    assert choose_score(TaughtConfig(score="loss"), decoder) == "loss"
    assert choose_score(TaughtConfig(score="cer"), decoder) == "cer"
    with pytest.raises(ConfigError, match="Set score=loss"):
        choose_score(TaughtConfig(score="wer"), None)

from __future__ import annotations

from dataclasses import fields

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.options import TranscribeOptions


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        TranscribeOptions(
            formats="txt,jsn", workers=0, normaliser="verbatm", max_failures="many", option=("lm",)
        )
    for part in ("jsn", "--workers", "verbatim", "--max-failures", "--option takes name=value"):
        assert part in str(caught.value)


def test_formats_stand_in_one_order_and_all_means_all():
    assert TranscribeOptions(formats="json, txt").format_names == ("txt", "json")
    assert TranscribeOptions(formats="all").format_names == ("txt", "srt", "vtt", "tsv", "json")
    with pytest.raises(ConfigError, match="names no format"):
        TranscribeOptions(formats=",")


def test_what_only_schedules_is_no_part_of_the_identity():
    known = TranscribeOptions().identity()
    for name in ("workers", "device", "batch_size", "shard", "inputs", "output", "json_progress"):
        assert name not in known
    for name in ("model", "beam_size", "vad", "dtype", "formats", "normaliser", "option"):
        assert name in known
    assert TranscribeOptions(workers=4).identity() == known
    assert TranscribeOptions(beam_size=4).identity() != known


def test_decoder_options_join_named_ones_and_free_ones():
    options = TranscribeOptions(
        language="en", option=("lm=words.txt", "temperature=[0, 0.2]", "alpha=0.7")
    )
    assert options.decoder_options == {
        "language": "en",
        "word_timestamps": False,
        "lm": "words.txt",
        "temperature": (0, 0.2),
        "alpha": 0.7,
    }


def test_what_a_diffusion_decoder_is_asked_goes_to_it_alone_where_it_is_asked():
    asked = TranscribeOptions(num_candidates=5, num_steps=2, select="rover", keep_candidates=True)
    assert asked.decoder_options == {
        "num_candidates": 5,
        "num_steps": 2,
        "select": "rover",
        "keep_candidates": True,
        "word_timestamps": False,
    }
    with pytest.raises(ConfigError, match="--num-steps must be 1 or more, got 0"):
        TranscribeOptions(num_steps=0)


def test_every_field_explains_itself():
    for entry in fields(TranscribeOptions):
        assert entry.name == "inputs" or entry.metadata["help"]

from __future__ import annotations

from dataclasses import fields

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.restore_options import RestoreOptions


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        RestoreOptions(
            format="mp3",
            sample_rate="fast",
            loudness="loud",
            suffix="a/b",
            iterations=0,
            score=("pesq",),
            keep_original_if=("speaker~0.5", "snr<3"),
        )
    for part in (
        "--format knows no 'mp3'",
        "--sample-rate must be keep",
        "--loudness must be keep",
        "--suffix is part of a name",
        "--iterations must be 1 or more",
        "--score knows no 'pesq'",
        "as 'speaker<0.75', got 'speaker~0.5'",
        "knows no score 'snr'",
    ):
        assert part in str(caught.value), part


def test_work_is_spread_over_workers_and_not_over_threads():
    assert RestoreOptions(threads=2, workers=2).workers == 2
    with pytest.raises(ConfigError, match="give --workers 2"):
        RestoreOptions(threads=2)


def test_opus_knows_some_rates_alone():
    assert RestoreOptions(format="opus", sample_rate="48000").output_rate == 48000
    with pytest.raises(ConfigError, match="44100 is none of Opus"):
        RestoreOptions(format="opus", sample_rate="44100")
    assert RestoreOptions(sample_rate="44100").output_rate == 44100
    assert RestoreOptions().output_rate is None


def test_the_gate_asks_for_its_measures():
    options = RestoreOptions(keep_original_if=("cer>0.1", "dnsmos<-0.1"), score=("speaker",))
    assert options.measures == ("dnsmos", "speaker", "words")
    assert RestoreOptions().measures == ()


def test_wishes_that_come_to_the_same_have_one_identity():
    one = RestoreOptions(keep_original_if=("cer>0.1", "dnsmos<-0.1"))
    same = RestoreOptions(keep_original_if=("dnsmos<-0.1", "cer>0.1"), score=("words",))
    assert one.identity() == same.identity()
    assert RestoreOptions(judge="other").identity() == RestoreOptions().identity()
    assert one.identity() != RestoreOptions(keep_original_if=("cer>0.1",)).identity()
    assert RestoreOptions(loudness="-23LUFS").identity() != RestoreOptions().identity()


def test_every_field_explains_itself():
    for entry in fields(RestoreOptions):
        assert entry.name == "inputs" or entry.metadata["help"]

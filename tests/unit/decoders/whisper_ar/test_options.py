from __future__ import annotations

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.whisper_ar.options import WhisperOptions


def test_the_defaults_are_whispers():
    options = WhisperOptions()
    assert options.temperature == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert options.best_of == 5
    assert options.compression_ratio_threshold == 2.4
    assert options.logprob_threshold == -1.0
    assert options.no_speech_threshold == 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sing"}, "transcribe or translate, got 'sing'"),
        ({"padding": "half"}, "full or native, got 'half'"),
        ({"cache": "huge"}, "dynamic or static, got 'huge'"),
        ({"cache": "static", "padding": "native"}, "Set padding=full or cache=dynamic"),
        ({"beam_size": 0}, "beam_size must be 1 or more"),
        ({"best_of": 0}, "best_of must be 1 or more"),
        ({"sample_len": 0}, "sample_len must be 1 or more"),
        ({"temperature": ()}, "temperature must list"),
        ({"temperature": (-0.1,)}, "temperature must list"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        WhisperOptions(**options)

from __future__ import annotations

from dataclasses import dataclass

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.options import parse_options


@dataclass(frozen=True)
class Options:
    beam_size: int = 1
    language: str | None = None


def test_named_options_are_set_and_the_others_keep_their_defaults():
    assert parse_options(Options, {"beam_size": 5}, "toy") == Options(beam_size=5)


def test_every_unknown_option_is_reported_at_once_with_near_misses():
    with pytest.raises(ConfigError) as caught:
        parse_options(Options, {"beam": 5, "languag": "en", "beam_size": 2}, "toy")
    lines = str(caught.value).splitlines()
    assert lines[0] == "toy has no option 'beam'. Did you mean beam_size?"
    assert lines[1] == "toy has no option 'languag'. Did you mean language?"

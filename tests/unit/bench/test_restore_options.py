from __future__ import annotations

import pytest

from speechadapt.bench.restore_options import RestoreBench
from speechadapt.core.errors import ConfigError


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RestoreBench(size="fulll", vocoder="vocos", rounds=0, seconds=0.0)
    for part in ("Did you mean full", "--vocoder", "--rounds", "--seconds must be 0.1"):
        assert part in str(caught.value)

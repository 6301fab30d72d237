"""Settings of a comparison of adapter methods."""

from __future__ import annotations

import pytest

from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.core.errors import ConfigError


def test_settings_are_checked_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        AdapterBench(methods="lor", rates="fast", rounds=0)
    for part in ("no method 'lor'", "--rates takes numbers", "--rounds"):
        assert part in str(caught.value)

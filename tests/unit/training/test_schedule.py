from __future__ import annotations

import pytest

from speechadapt.training.schedule import warmup_cosine


def test_the_rate_rises_to_its_peak_and_falls_to_its_end() -> None:
    factors = [warmup_cosine(step, total=100, warmup=10, final=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_rate_stays_at_its_end_past_the_schedule() -> None:
    assert warmup_cosine(500, total=100, warmup=0, final=0.1) == pytest.approx(0.1)

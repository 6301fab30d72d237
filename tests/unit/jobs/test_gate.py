"""The quality gate: conditions, what meets them, what is missing."""

from __future__ import annotations

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.gate import SCORES, Condition, parse_condition, reasons


def test_conditions_are_read_with_and_without_spaces():
    assert parse_condition("speaker<0.75") == Condition("speaker", True, 0.75)
    assert parse_condition(" cer > 1e-1 ") == Condition("cer", False, 0.1)
    assert parse_condition("dnsmos<-0.1") == Condition("dnsmos", True, -0.1)


@pytest.mark.parametrize(
    "text", ["speaker", "speaker<", "speaker<=0.5", "cer>ten", "cer>nan", "<1"]
)
def test_what_is_no_condition_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"as 'speaker<0\.75'"):
        parse_condition(text)


def test_an_unknown_score_names_its_near_misses():
    with pytest.raises(ConfigError, match=r"'speker'\. Did you mean speaker"):
        parse_condition("speker<0.75")


def test_the_limit_itself_passes_and_the_reason_has_the_value():
    low, high = parse_condition("speaker<0.75"), parse_condition("cer>0.10")
    assert low.reason(0.75) is None
    assert low.reason(0.7499) == "speaker 0.750 < 0.75"
    assert high.reason(0.1) is None
    assert high.reason(0.2) == "cer 0.200 > 0.1"


def test_any_condition_that_is_met_counts_and_a_missing_score_meets_none():
    gate = [parse_condition(text) for text in ("speaker<0.75", "cer>0.10", "dnsmos<-0.1")]
    met, missing = reasons(gate, {"speaker": 0.5, "cer": None, "dnsmos": -0.3})
    assert met == ("speaker 0.500 < 0.75", "dnsmos -0.300 < -0.1")
    assert missing == ("cer",)
    assert reasons(gate, {}) == ((), ("speaker", "cer", "dnsmos"))
    assert reasons((), {}) == ((), ())


def test_every_score_says_what_has_to_be_measured():
    measures = {name: parse_condition(f"{name}>0").measure for name in SCORES}
    assert set(measures.values()) == {"speaker", "words", "dnsmos"}
    assert measures["dnsmos_bak"] == "dnsmos"

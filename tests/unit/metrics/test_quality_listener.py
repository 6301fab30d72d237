"""Listeners: equal to their packages, missing where they know nothing, named where not there."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from speechadapt.core.errors import MissingExtra
from speechadapt.metrics.quality_listener import at_rate, check_listeners, dnsmos, pesq, stoi

RATE = 16000


def voice(seconds: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(0)
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 30))
    swell = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    return (0.1 * swell * buzz + 0.001 * random.standard_normal(len(time))).astype(np.float32)


def noisy(scale: float) -> np.ndarray:
    random = np.random.default_rng(1)
    return voice() + (scale * random.standard_normal(len(voice()))).astype(np.float32)


def test_pesq_is_the_packages_and_falls_with_noise() -> None:
    package = pytest.importorskip("pesq")
    found = [pesq(voice(), noisy(scale), RATE)["pesq"] for scale in (0.001, 0.05)]
    assert found[0] == pytest.approx(package.pesq(RATE, voice(), noisy(0.001), "wb"))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0] > found[1]
    narrow = [one[::2].copy() for one in (voice(), noisy(0.05))]
    assert pesq(*narrow, 8000)["pesq"] == pytest.approx(package.pesq(8000, *narrow, "nb"))


def test_stoi_is_the_packages_and_falls_with_noise() -> None:
    package = pytest.importorskip("pystoi")
    found = [stoi(voice(), noisy(scale), RATE) for scale in (0.001, 0.2)]
    assert found[1]["stoi"] == pytest.approx(package.stoi(voice(), noisy(0.2), RATE))
    assert found[1]["estoi"] == pytest.approx(package.stoi(voice(), noisy(0.2), RATE, True))
    assert (found[0]["estoi"] or 0.0) > (found[1]["estoi"] or 0.0)


def test_silence_and_stubs_have_no_scores() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    silence, stub = np.zeros(RATE, dtype=np.float32), voice()[:1500]
    assert pesq(silence, voice()[:RATE], RATE) == {"pesq": None}
    assert pesq(voice()[:RATE], silence, RATE) == {"pesq": None}
    assert pesq(stub, stub, RATE) == {"pesq": None}
    assert stoi(silence, silence, RATE) == {"stoi": None, "estoi": None}
    assert stoi(stub, stub, RATE) == {"stoi": None, "estoi": None}


@pytest.mark.slow
def test_dnsmos_scores_sound_alone_and_no_silence() -> None:
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    found = dnsmos(voice() * np.float32(8.0), RATE)
    assert set(found) == {"dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"}
    assert all(value is not None and 0.5 < value < 5.5 for value in found.values())
    assert set(dnsmos(np.zeros(RATE, dtype=np.float32), RATE).values()) == {None}


@pytest.mark.parametrize("package", ["pesq", "pystoi", "speechmos"])
def test_a_missing_package_is_named_by_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    calls = {
        "pesq": lambda: pesq(voice(), voice(), RATE),
        "pystoi": lambda: stoi(voice(), voice(), RATE),
        "speechmos": lambda: dnsmos(voice(), RATE),
    }
    with pytest.raises(MissingExtra, match=r"pip install 'speechadapt\[metrics\]'"):
        calls[package]()


def test_missing_listeners_are_found_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_listeners(())
    with pytest.raises(MissingExtra, match="The score 'dnsmos'"):
        check_listeners(("dnsmos",))


def test_resampling_is_left_out_at_the_same_rate() -> None:
    signal = voice()
    assert at_rate(signal, RATE, RATE) is signal
    assert len(at_rate(signal, RATE, 8000)) == len(signal) // 2

"""Scores by models of listeners, from packages of the extra `metrics`: PESQ, STOI, DNSMOS.

    pesq      1 to 4.64, ITU-T P.862.2 wide band, at 8 kHz P.862 narrow band
    stoi      0 to 1, short-time objective intelligibility; estoi its extended form
    dnsmos_*  1 to 5, non-intrusive mean opinion scores of ITU-T P.835 (ovrl, sig, bak) and P.808

A score that a pair does not have is None, never 0: PESQ and STOI know none for silence and for very
short signals.
"""

from __future__ import annotations

import warnings

import numpy as np

from speechadapt.audio.span import Signal
from speechadapt.core.errors import MissingExtra
from speechadapt.metrics.quality import Scores

LISTENERS = ("pesq", "stoi", "dnsmos")
_WIDE, _NARROW = 16000, 8000
_DNSMOS = {
    "dnsmos_ovrl": "ovrl_mos",
    "dnsmos_sig": "sig_mos",
    "dnsmos_bak": "bak_mos",
    "dnsmos_p808": "p808_mos",
}


def check_listeners(names: tuple[str, ...]) -> None:
    """Refuse listeners whose package is not installed, before any work is done.

    Args:
        names: Of `LISTENERS`.

    Raises:
        MissingExtra: One of them needs a package that is not there.
    """
    from importlib.util import find_spec

    packages = {"pesq": ("pesq",), "stoi": ("pystoi",), "dnsmos": ("speechmos", "onnxruntime")}
    for name in names:
        if any(find_spec(package) is None for package in packages[name]):
            raise MissingExtra("metrics", f"The score '{name}'")


def pesq(reference: Signal, degraded: Signal, sample_rate: int) -> Scores:
    """Return `pesq`, at 16 kHz, or at 8 kHz where that is the signals' rate.

    Args:
        reference: Clean samples.
        degraded: As many.
        sample_rate: Hz.

    Raises:
        MissingExtra: The package is not installed.
    """
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError as error:
        raise MissingExtra("metrics", "The score 'pesq'") from error
    rate = _NARROW if sample_rate <= _NARROW else _WIDE
    mode = "nb" if rate == _NARROW else "wb"
    clean, given = (at_rate(one, sample_rate, rate) for one in (reference, degraded))
    if not clean.any() or not given.any():
        return {"pesq": None}
    try:
        return {"pesq": float(measure(rate, clean, given, mode))}
    except PesqError:  # no utterance found, or too short
        return {"pesq": None}


def stoi(reference: Signal, degraded: Signal, sample_rate: int) -> Scores:
    """Return `stoi` and `estoi`.

    Args:
        reference: Clean samples.
        degraded: As many.
        sample_rate: Hz.

    Raises:
        MissingExtra: The package is not installed.
    """
    try:
        from pystoi import stoi as measure
    except ImportError as error:
        raise MissingExtra("metrics", "The score 'stoi'") from error
    names = {"stoi": False, "estoi": True}
    if not reference.any() or not degraded.any():
        return dict.fromkeys(names)
    clean, given = (at_rate(one, sample_rate, _WIDE) for one in (reference, degraded))
    with warnings.catch_warnings():
        # too little speech is a warning and the number 1e-5 there
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return {name: float(measure(clean, given, _WIDE, more)) for name, more in names.items()}
        except (RuntimeWarning, ValueError, IndexError):
            return dict.fromkeys(names)


def dnsmos(degraded: Signal, sample_rate: int) -> Scores:
    """Return `dnsmos_ovrl`, `dnsmos_sig`, `dnsmos_bak` and `dnsmos_p808`.

    Args:
        degraded: Samples; beyond full scale they are clipped.
        sample_rate: Hz.

    Raises:
        MissingExtra: The packages are not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from speechmos import dnsmos as package
    except ImportError as error:
        raise MissingExtra("metrics", "The score 'dnsmos'") from error
    if not degraded.any():
        return dict.fromkeys(_DNSMOS)
    heard = np.clip(at_rate(degraded, sample_rate, _WIDE), -1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = package.run(heard, sr=_WIDE)
    return {name: float(found[key]) for name, key in _DNSMOS.items()}


def at_rate(signal: Signal, sample_rate: int, rate: int) -> Signal:
    """Resample a signal.

    Args:
        signal: Samples.
        sample_rate: Their rate in Hz.
        rate: Wanted, in Hz.
    """
    if rate == sample_rate:
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, sample_rate, rate), dtype=np.float32)

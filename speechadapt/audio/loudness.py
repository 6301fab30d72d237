"""Loudness of recordings, as broadcasters measure it (ITU-R BS.1770)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

_BLOCK_S = 0.4
_STEPS = 4  # blocks overlap by three quarters
_LEAD_S = 0.5  # longer than the filters remember
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = 10.0
_PORTION_S = 30.0
_ROOM = 2.0**-6


class LoudnessMeter:
    """The integrated loudness of a recording that comes in portions, in bounded memory.

    Every channel counts alike.

    Args:
        sample_rate: Hz.

    Source:
        ITU-R BS.1770-4; the filters are torchaudio's (`torchaudio.functional.loudness`).
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._step = round(_BLOCK_S * sample_rate) // _STEPS
        self._lead: NDArray[np.float32] | None = None
        self._rest: NDArray[np.float64] = np.zeros(0)
        self._energies: list[NDArray[np.float64]] = []

    def add(self, waveforms: Float32[np.ndarray, "channels samples"]) -> None:
        """Take in a portion.

        Args:
            waveforms: The next samples of every channel.
        """
        if not waveforms.shape[1]:
            return
        lead = self._lead if self._lead is not None else waveforms[:, :0]
        heard = np.concatenate([lead, waveforms], axis=1)
        self._lead = heard[:, -round(_LEAD_S * self._rate) :].copy()
        weighted = _weighted(heard, self._rate)[:, lead.shape[1] :]
        power = np.concatenate([self._rest, np.square(weighted, dtype=np.float64).sum(0)])
        whole = len(power) // self._step * self._step
        self._energies.append(power[:whole].reshape(-1, self._step).sum(1))
        self._rest = power[whole:]

    def lufs(self) -> float | None:
        """Return the loudness; None for silence, or for less than 0.4 s."""
        steps = np.concatenate([*self._energies, np.zeros(0)])
        if len(steps) < _STEPS:
            return None
        blocks = np.convolve(steps, np.ones(_STEPS), mode="valid") / (_STEPS * self._step)
        gate = _energy(_ABSOLUTE_GATE_LUFS)
        loud = blocks[blocks > gate]
        if not len(loud):
            return None
        gate = max(gate, float(loud.mean()) * 10 ** (-_RELATIVE_GATE_LU / 10))
        return _OFFSET_LUFS + 10 * math.log10(float(blocks[blocks > gate].mean()))


def loudness_gain(
    waveforms: Float32[np.ndarray, "*channels samples"], sample_rate: int, loudness: float
) -> float:
    """Return the factor that brings a recording to a loudness.

    Args:
        waveforms: One channel, or several one above the other.
        sample_rate: Hz.
        loudness: Wanted, in LUFS.

    Returns:
        The factor; 1 where the recording has no loudness: silence, or less than 0.4 s.
    """
    meter, portion = LoudnessMeter(sample_rate), round(_PORTION_S * sample_rate)
    rows = waveforms.reshape(-1, waveforms.shape[-1])
    for start in range(0, rows.shape[1], portion):
        meter.add(rows[:, start : start + portion])
    return gain_between(meter.lufs(), loudness)


def gain_between(found: float | None, wanted: float) -> float:
    """Return the factor from one loudness to another; 1 where there is none.

    Args:
        found: In LUFS.
        wanted: In LUFS.
    """
    return 1.0 if found is None else 10 ** ((wanted - found) / 20)


def _energy(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET_LUFS) / 10))


def _weighted(waveforms: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    import torch
    from torchaudio.functional import highpass_biquad, treble_biquad

    # the filters clip at full scale
    signal = torch.from_numpy(np.ascontiguousarray(waveforms * np.float32(_ROOM)))
    shelved = treble_biquad(signal, sample_rate, 4.0, 1500.0, 1 / math.sqrt(2))
    return np.asarray(highpass_biquad(shelved, sample_rate, 38.0, 0.5).numpy() / _ROOM)

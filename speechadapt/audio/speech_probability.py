"""Probability of speech per 32 ms window: Silero's network, and an energy rule to fall back on.

The network's weights come from the `silero-vad` wheel; the layers are laid out here so that all
windows of a block, or of many clips, go through them at once instead of one call a window.

Source: https://github.com/snakers4/silero-vad (MIT).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from speechadapt.audio.span import Signal
from speechadapt.core.errors import CheckpointError

SAMPLE_RATE = 16000
WINDOW = 512
_CONTEXT = 64
_BINS = 129
_WIDTH = 128
_ENERGY_GATE_DB = -50.0
_ENERGY_RISE_DB = 10.0
_FLOOR_LEAK_DB = 0.02


@runtime_checkable
class Scorer(Protocol):
    """Gives the probability of speech in windows of `WINDOW` samples at `SAMPLE_RATE`.

    Attributes:
        name: What it is, with its version, for reports.
    """

    name: str

    def start(self) -> Any:
        """Return the state before the first window of a recording."""
        ...

    def score(self, samples: Signal, state: Any) -> tuple[Float32[np.ndarray, " _windows"], Any]:
        """Score a whole number of windows.

        Args:
            samples: Follow those of the call that returned `state`.
            state: From `start` or the call before.

        Returns:
            One probability a window, and the state after the last one.
        """
        ...

    def score_batch(self, clips: Sequence[Signal]) -> list[Float32[np.ndarray, " _windows"]]:
        """Score clips that each begin anew; every clip is a whole number of windows."""
        ...


@dataclass(frozen=True)
class _SileroState:
    context: Signal
    memory: Any


class SileroScorer:
    """Silero's voice activity network at 16 kHz.

    Rounding aside (below 1e-5), a batch scores as its clips do one by one.

    Raises:
        CheckpointError: The weights are not there or are not the ones this layout fits.
    """

    def __init__(self) -> None:
        import torch

        weights = _silero_weights()
        try:
            self._basis = weights["stft.forward_basis_buffer"]
            self._convs = [
                (
                    weights[f"encoder.{i}.reparam_conv.weight"],
                    weights[f"encoder.{i}.reparam_conv.bias"],
                )
                for i in range(4)
            ]
            self._head = weights["decoder.decoder.2.weight"][0, :, 0]
            self._offset = weights["decoder.decoder.2.bias"]
            self._recurrent = torch.nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
            self._recurrent.load_state_dict(
                {
                    f"{name}_l0": weights[f"decoder.rnn.{name}"]
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                }
            )
        except (KeyError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"silero-vad {_silero_version()} holds another network than the one known here: "
                f"{error}. Install 'silero-vad>=6.0,<7'."
            ) from error
        self._recurrent.requires_grad_(False)
        self.name = f"silero-vad {_silero_version()}"

    def start(self) -> _SileroState:
        """Return the state before the first window of a recording."""
        import torch

        zeros = torch.zeros(1, 1, _WIDTH)
        return _SileroState(np.zeros(_CONTEXT, dtype=np.float32), (zeros, zeros))

    def score(
        self, samples: Signal, state: _SileroState
    ) -> tuple[Float32[np.ndarray, " _windows"], _SileroState]:
        """Score a whole number of windows that follow those before `state`."""
        import torch

        with torch.inference_mode():
            padded = torch.from_numpy(np.concatenate((state.context, samples)))
            features = self._features(padded.unfold(0, _CONTEXT + WINDOW, WINDOW))
            hidden, memory = self._recurrent(features[None], state.memory)
            scores = self._probabilities(hidden[0])
        return scores, _SileroState(samples[-_CONTEXT:].copy(), memory)

    def score_batch(self, clips: Sequence[Signal]) -> list[Float32[np.ndarray, " _windows"]]:
        """Score clips that each begin anew; every clip is a whole number of windows."""
        import torch

        counts = [len(clip) // WINDOW for clip in clips]
        if not any(counts):
            return [np.zeros(0, dtype=np.float32) for _ in clips]
        zeros = np.zeros(_CONTEXT, dtype=np.float32)
        with torch.inference_mode():
            features = [
                self._features(
                    torch.from_numpy(np.concatenate((zeros, clip))).unfold(
                        0, _CONTEXT + WINDOW, WINDOW
                    )
                )
                if count
                else torch.zeros(0, _WIDTH)
                for clip, count in zip(clips, counts, strict=True)
            ]
            padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
            hidden, _ = self._recurrent(padded)
            return [self._probabilities(hidden[row, :count]) for row, count in enumerate(counts)]

    def _features(self, windows: Any) -> Any:
        """Magnitude spectrum and four convolutions: [windows, 576] to [windows, 128]."""
        from torch.nn import functional

        signal = functional.pad(windows[:, None], (0, _CONTEXT), "reflect")
        spectrum = functional.conv1d(signal, self._basis, stride=128)
        frames = (spectrum[:, :_BINS] ** 2 + spectrum[:, _BINS:] ** 2).sqrt()
        for (weight, bias), stride in zip(self._convs, (1, 2, 2, 1), strict=True):
            frames = functional.conv1d(frames, weight, bias, stride=stride, padding=1).relu()
        return frames[..., 0]

    def _probabilities(self, hidden: Any) -> Float32[np.ndarray, " _windows"]:
        scores: Float32[np.ndarray, " _windows"] = (
            (hidden.relu() @ self._head + self._offset).sigmoid().numpy()
        )
        return scores


class EnergyScorer:
    """Level above a slowly rising noise floor; for machines where Silero's weights do not load.

    It takes any sound that stands out for speech, so it never misses a talker over steady noise and
    often reports music, clicks and animals.
    """

    name = "energy"

    def start(self) -> float:
        """Return the noise floor, in dB full scale, before the first window."""
        return 0.0

    def score(
        self, samples: Signal, state: float
    ) -> tuple[Float32[np.ndarray, " _windows"], float]:
        """Score a whole number of windows that follow those before `state`."""
        power = np.mean(samples.reshape(-1, WINDOW).astype(np.float64) ** 2, axis=1)
        levels = 10 * np.log10(np.maximum(power, 1e-12))
        scores = np.empty(len(levels), dtype=np.float32)
        floor = state
        for index, level in enumerate(levels):
            floor = min(float(level), floor + _FLOOR_LEAK_DB)
            edge = max(floor + _ENERGY_RISE_DB, _ENERGY_GATE_DB)
            scores[index] = 1 / (1 + np.exp(-np.clip((level - edge) / 2, -30, 30)))
        return scores, floor

    def score_batch(self, clips: Sequence[Signal]) -> list[Float32[np.ndarray, " _windows"]]:
        """Score clips that each begin anew; every clip is a whole number of windows."""
        return [self.score(clip, self.start())[0] for clip in clips]


def _silero_version() -> str:
    try:
        return importlib.metadata.version("silero-vad")
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"


def _silero_weights() -> dict[str, Any]:
    """Read the 16 kHz network's tensors.

    The package is found but not imported: importing it sets torch to one thread for the whole
    process.
    """
    import torch

    found = importlib.util.find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise CheckpointError("silero-vad is not installed: pip install 'silero-vad>=6.0,<7'.")
    path = Path(found.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    try:
        with warnings.catch_warnings():
            # torch deprecates TorchScript files; the wheel has its current weights in no other.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"silero-vad's weights {path.name!r} do not load: {error}") from error
    prefix = "_model."
    return {
        name.removeprefix(prefix): tensor.detach()
        for name, tensor in module.state_dict().items()
        if name.startswith(prefix)
    }

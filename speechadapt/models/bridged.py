"""An encoder with a bridge to a frozen decoder that was made for another encoder's frames.

The bridge is an attached adapter (method `pea_bridge`) that widens every frame of the encoder to
several of the decoder's; here they are laid in a row and brought to the decoder's rate. What a
saved bridge belongs to stands under `head` in its `adapter_config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.shapes import Clip, Frames, Lengths, Mask
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.source import fingerprint_folder

KIND = "bridge"
METHOD = "pea_bridge"
_MOST = 8  # frames of either side that may stand for one another


@dataclass(frozen=True)
class Bridge:
    """What a saved bridge leads to.

    Args:
        decoder: Name of the model whose decoder reads the frames.
        decoder_files: Fingerprint of that model's weight files.
        dim: Width of its frames.
        repeat: Frames that the bridge gives for each of the encoder's.
        pool: How many of those make one of the decoder's.
        window_s: Longest clip the decoder was made for, in seconds.
        margin_s: Hiss on either side of a clip, in seconds.
    """

    decoder: str
    decoder_files: str
    dim: int
    repeat: int
    pool: int
    window_s: float
    margin_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"kind": KIND, **vars(self)}


class BridgedEncoder(Encoder):
    """Frames of one encoder, through a bridge, as a decoder made for another one takes them.

    Args:
        encoder: The frozen encoder; the bridge is attached to it, and active wherever this is
            called.
        dim: Width of the decoder's frames.
        repeat: Frames that the bridge gives for each of the encoder's.
        pool: How many of those are averaged to one.
        window_s: Longest clip in seconds; the encoder's own window where that is shorter.
    """

    def __init__(
        self, encoder: Encoder, dim: int, repeat: int, pool: int, window_s: float | None
    ) -> None:
        super().__init__()
        self.inner = [encoder]  # listed: `model` is all there is to register
        self.model = encoder.model
        self.family = encoder.family
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate * repeat / pool
        self.dim = dim
        self.repeat = repeat
        self.pool = pool
        windows = [one for one in (encoder.window_s, window_s) if one is not None]
        self.window_s = min(windows) if windows else None
        self.masks_padding = encoder.masks_padding
        self.sites = encoder.sites
        self.source = encoder.source
        self.followers = encoder.followers
        self.attached = encoder.attached

    def extract(self, waveforms: Sequence[Clip]) -> tuple[Tensor, Lengths]:
        """Compute the encoder's own features.

        Args:
            waveforms: Mono signals at `sample_rate`, full scale 1.0.
        """
        return self.inner[0].extract(waveforms)

    def forward(self, features: Tensor, lengths: Lengths) -> tuple[Frames, Lengths]:
        """Encode features, cross the bridge, and bring the frames to the decoder's rate.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.

        Returns:
            Frames of the decoder's width at `frame_rate`, and at least one valid frame per row.

        Raises:
            ConfigError: No bridge of that width is active.
        """
        wide, valid = self.inner[0](features, lengths)
        if wide.shape[-1] != self.repeat * self.dim:
            raise ConfigError(
                f"frames of width {self.repeat * self.dim} were expected from the bridge, but the "
                f"encoder gives {wide.shape[-1]}. Attach one with adapter.dim={self.dim} and "
                f"adapter.repeat={self.repeat}, and let it be active."
            )
        frames = wide.reshape(wide.shape[0], -1, self.dim)
        given = valid * self.repeat
        return _pooled(frames, given, self.pool), (given // self.pool).clamp(min=1)

    def residual_mask(self, features: Tensor, lengths: Lengths) -> Mask | None:
        """Return the encoder's own mask.

        Args:
            features: As returned by `extract`.
            lengths: Valid feature frames per row.
        """
        return self.inner[0].residual_mask(features, lengths)


def _pooled(
    frames: Float[Tensor, "batch given dim"], lengths: Lengths, pool: int
) -> Float[Tensor, "batch pooled dim"]:
    if pool == 1:
        return frames
    count = max(1, frames.shape[1] // pool)
    places = torch.arange(count * pool, device=frames.device)
    # past its end a row repeats its last frame, so that what pads it is never averaged in
    chosen = torch.minimum(places[None, :], lengths[:, None] - 1)
    whole = frames.gather(1, chosen[:, :, None].expand(-1, -1, frames.shape[2]))
    return whole.reshape(frames.shape[0], count, pool, frames.shape[2]).mean(2)


def ratio(rate: float, wanted: float) -> tuple[int, int]:
    """Return how many frames stand for how many: `repeat` and `pool`.

    Args:
        rate: Frames per second of the encoder.
        wanted: Frames per second of the decoder.

    Raises:
        ConfigError: No small whole numbers bring the one to the other.
    """
    found = Fraction(wanted / rate).limit_denominator(_MOST)
    if found.numerator > _MOST or abs(float(found) * rate - wanted) > 1e-3 * wanted:
        raise ConfigError(
            f"frames at {rate:g} Hz were to be brought to {wanted:g} Hz, but at most {_MOST} "
            f"frames can stand for at most {_MOST}."
        )
    return found.numerator, found.denominator


def read_bridge(stored: store.Stored) -> Bridge | None:
    """Return what a folder says about the bridge it holds; None where it holds none.

    Args:
        stored: The folder, read.

    Raises:
        CheckpointError: What it says cannot be used.
    """
    said = stored.details.get("head")
    if not isinstance(said, Mapping) or said.get("kind") != KIND:
        return None
    try:
        return Bridge(
            str(said["decoder"]),
            str(said["decoder_files"]),
            int(said["dim"]),
            int(said["repeat"]),
            int(said["pool"]),
            float(said["window_s"]),
            float(said["margin_s"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the bridge of '{stored.folder}' cannot be used: {type(error).__name__}: {error}. "
            f"Its {store.CONFIG} is damaged or of a newer release."
        ) from error


def bridge_saved(encoder: Encoder, folder: Path, bridge: Bridge) -> BridgedEncoder:
    """Attach a saved bridge, as `adapter`, and return the encoder that crosses it.

    Args:
        encoder: The encoder it was trained on.
        folder: The saved adapter.
        bridge: What it says about itself.

    Raises:
        CheckpointError: The encoder is another one, or the folder is damaged.
    """
    store.load(encoder, folder, name="adapter")
    return BridgedEncoder(encoder, bridge.dim, bridge.repeat, bridge.pool, bridge.window_s)


def check_decoder(folder: Path, bridge: Bridge) -> None:
    """Refuse a decoder that the bridge was not made for.

    Args:
        folder: The model folder with the decoder.
        bridge: The bridge.

    Raises:
        CheckpointError: Its weight files are others.
    """
    found = fingerprint_folder(folder)
    if found != bridge.decoder_files:
        raise CheckpointError(
            f"the bridge leads to the decoder of {bridge.decoder} with the weights "
            f"{bridge.decoder_files[:8]}..., but {folder.name} has {found[:8]}.... "
            "Name the model it was made for: decoder_model=FOLDER."
        )

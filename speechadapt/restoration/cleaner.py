"""The feature cleaner: a frozen encoder, cut after a layer, and an adapter that undoes damage.

The adapter stands at the last feed-forward of every kept layer (`ffn2` of a Conformer) and its
output is what the same frozen encoder, with no adapter, makes of the clean signal. A saved cleaner
is a saved adapter (`adapters.store`) whose `head` entry says after which layer the encoder ends.

Source: Miipher-2, https://arxiv.org/abs/2505.04457 (parallel adapters on a frozen USM); low-rank
    adapters in their place as in Sidon, https://arxiv.org/abs/2509.17052.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import CheckpointError
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.restoration.cut import load_cut

if TYPE_CHECKING:
    from speechadapt.encoders.w2v_bert import W2vBertEncoder

KIND = "cleaner"
ROLES = ("ffn2",)
NAME = "cleaner"


@dataclass(frozen=True)
class Cleaner:
    """A frozen encoder and the adapter that cleans its features.

    Args:
        encoder: Ends after the layer whose features are cleaned.
        handle: The adapter.
    """

    encoder: W2vBertEncoder
    handle: Handle

    @property
    def layer(self) -> int:
        """The layer whose features these are, counted from 1."""
        return int(self.encoder.model.config.num_hidden_layers)

    def clean(self, features: Tensor, lengths: Lengths) -> Frames:
        """Predict clean features.

        Args:
            features: Of degraded signals, as the encoder's `extract` gives them.
            lengths: Valid frames per row.
        """
        with active(self.encoder, self.handle.name):
            frames: Tensor = self.encoder(features, lengths)[0]
        return frames

    @torch.no_grad()
    def targets(self, features: Tensor, lengths: Lengths) -> Frames:
        """Return the frozen encoder's own features, which a cleaner is trained towards.

        Args:
            features: Of clean signals, as the encoder's `extract` gives them.
            lengths: Valid frames per row.
        """
        with active(self.encoder, None):
            frames: Tensor = self.encoder(features, lengths)[0]
        return frames

    @torch.no_grad()
    def encode(self, waveforms: Sequence[Clip]) -> tuple[Frames, Lengths]:
        """Predict clean features of degraded signals.

        Args:
            waveforms: Mono at 16 kHz, full scale 1.0.
        """
        features, lengths = self.encoder.extract(waveforms)
        first = next(self.encoder.model.parameters())
        lengths = lengths.to(first.device)
        return self.clean(features.to(first.device, first.dtype), lengths), lengths

    def save(
        self,
        folder: Path,
        training: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the adapter and the layer its encoder ends after.

        Args:
            folder: Is made.
            training: What it was trained on and how, as JSON values.
            scores: What it scored where, as JSON values.

        Raises:
            CheckpointError: A tensor holds NaN or infinity.
        """
        head = {"kind": KIND, "layer": self.layer}
        return store.save(
            self.handle, folder, training=training, scores=scores, head={}, head_config=head
        )


def make_cleaner(
    encoder: W2vBertEncoder,
    method: str = "parallel",
    config: Any = None,
    roles: Sequence[str] = ROLES,
    train_norms: str = "none",
) -> Cleaner:
    """Attach an untrained adapter to a cut encoder.

    Args:
        encoder: Of `load_cut`.
        method: An adapter method; `parallel` reads through a layer norm of its own and starts with
            its up-projection at zero, as the cleaner wants it.
        config: The method's settings, None for its defaults.
        roles: Where the adapters stand.
        train_norms: Which norms are trained beside them.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting is out of range.
        SiteError: A role matches nothing.
    """
    handle = attach(encoder, method, name=NAME, config=config, roles=roles, train_norms=train_norms)
    return Cleaner(encoder, handle)


def cleaner_layer(folder: Path) -> int:
    """Return the layer after which the encoder of a saved cleaner ends.

    Args:
        folder: What `Cleaner.save` wrote.

    Raises:
        CheckpointError: The folder is no saved cleaner.
    """
    said = store.read(folder).details.get("head")
    if not isinstance(said, Mapping) or said.get("kind") != KIND or "layer" not in said:
        raise CheckpointError(
            f"'{folder}' was to be read as a feature cleaner, but its {store.CONFIG} names no "
            "layer. Train one with a recipe of recipes/restore."
        )
    return int(said["layer"])


def load_cleaner(folder: Path, base: Path, name: str | None = None) -> Cleaner:
    """Load a saved cleaner onto its base.

    Args:
        folder: What `Cleaner.save` wrote.
        base: The encoder's model folder.
        name: What the encoder is called; the folder where None.

    Returns:
        The cleaner, frozen and in evaluation mode.

    Raises:
        CheckpointError: A folder is damaged, is no cleaner, or the base is another one.
    """
    encoder = load_cut(base, cleaner_layer(folder), name=name)
    handle = store.load(encoder, folder, name=NAME)
    handle.module.requires_grad_(False)
    handle.module.eval()
    return Cleaner(encoder, handle)

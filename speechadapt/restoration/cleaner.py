"""The feature cleaner: a frozen encoder, cut after a layer, and an adapter that undoes damage.

The adapter stands at the last feed-forward of every kept layer (`ffn2` of a Conformer) and its
output is what the same frozen encoder, with no adapter, makes of the clean signal. A front
(`restoration.front`) may change what the encoder hears, too. A saved cleaner is a saved adapter
(`adapters.store`) whose `head` entry says after which layer the encoder ends, and holds the front.

Source: Miipher-2, https://arxiv.org/abs/2505.04457 (parallel adapters on a frozen USM); low-rank
    adapters in their place as in Sidon, https://arxiv.org/abs/2509.17052.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.handle import Handle
from speechadapt.core.bind import bind
from speechadapt.core.errors import CheckpointError
from speechadapt.core.shapes import Clip, Frames, Lengths
from speechadapt.encoders.features import seamless_fbank
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.front import Front, FrontConfig

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
        front: Changes what the encoder hears; None lets it hear the degraded signal as it is.
    """

    encoder: W2vBertEncoder
    handle: Handle
    front: Front | None = None

    @property
    def layer(self) -> int:
        """The layer whose features these are, counted from 1."""
        return int(self.encoder.model.config.num_hidden_layers)

    @property
    def trained(self) -> nn.ModuleDict:
        """What is trained and saved, by name: `adapter` and, where there is one, `front`."""
        parts: dict[str, nn.Module] = {"adapter": self.handle.module}
        if self.front is not None:
            parts["front"] = self.front
        return nn.ModuleDict(parts)

    def extract(
        self, waveforms: Sequence[Clip]
    ) -> tuple[Float[Tensor, "batch frames stacked"], Lengths]:
        """Compute the features that `clean` takes: log-mels as they are where there is a front.

        Args:
            waveforms: Mono at 16 kHz, full scale 1.0.
        """
        if self.front is None:
            return self.encoder.extract(waveforms)
        extractor = self.encoder.extractor
        sizes = extractor.stride, extractor.num_mel_bins
        return seamless_fbank(waveforms, *sizes, normalise=False)

    def clean(self, features: Tensor, lengths: Lengths) -> Frames:
        """Predict clean features.

        Args:
            features: Of degraded signals, as `extract` gives them.
            lengths: Valid frames per row.
        """
        if self.front is not None:
            features = self.front(features, lengths)
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
        features, lengths = self.extract(waveforms)
        first = next(self.encoder.model.parameters())
        lengths = lengths.to(first.device)
        # a front takes the mean of log-mels out before it leaves float32
        dtype = first.dtype if self.front is None else features.dtype
        return self.clean(features.to(first.device, dtype), lengths), lengths

    def save(
        self,
        folder: Path,
        training: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the adapter, the front and the layer that the encoder ends after.

        Args:
            folder: Is made.
            training: What it was trained on and how, as JSON values.
            scores: What it scored where, as JSON values.

        Raises:
            CheckpointError: A tensor holds NaN or infinity.
        """
        head: dict[str, Any] = {"kind": KIND, "layer": self.layer}
        tensors: dict[str, Tensor] = {}
        if self.front is not None:
            head["front"] = asdict(self.front.config)
            tensors = self.front.state_dict()
        return store.save(
            self.handle, folder, training=training, scores=scores, head=tensors, head_config=head
        )


def make_cleaner(
    encoder: W2vBertEncoder,
    method: str = "parallel",
    config: Any = None,
    roles: Sequence[str] = ROLES,
    train_norms: str = "none",
    front: FrontConfig | None = None,
) -> Cleaner:
    """Attach an untrained adapter to a cut encoder, and put an untrained front before it.

    Args:
        encoder: Of `load_cut`.
        method: An adapter method; `parallel` reads through a layer norm of its own and starts with
            its up-projection at zero, as the cleaner wants it.
        config: The method's settings, None for its defaults.
        roles: Where the adapters stand.
        train_norms: Which norms are trained beside them.
        front: What stands in front; None for nothing.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting is out of range.
        SiteError: A role matches nothing.
    """
    handle = attach(encoder, method, name=NAME, config=config, roles=roles, train_norms=train_norms)
    return Cleaner(encoder, handle, _make_front(encoder, front or FrontConfig()))


def _make_front(encoder: W2vBertEncoder, config: FrontConfig) -> Front | None:
    if config.kind == "none":
        return None
    extractor = encoder.extractor
    front = Front(extractor.num_mel_bins, extractor.stride, config)
    encoder.followers.append(front)
    return front


def cleaner_layer(folder: Path) -> int:
    """Return the layer after which the encoder of a saved cleaner ends.

    Args:
        folder: What `Cleaner.save` wrote.

    Raises:
        CheckpointError: The folder is no saved cleaner.
    """
    return int(_head(store.read(folder))["layer"])


def _head(stored: store.Stored) -> Mapping[str, Any]:
    said = stored.details.get("head")
    if not isinstance(said, Mapping) or said.get("kind") != KIND or "layer" not in said:
        raise CheckpointError(
            f"'{stored.folder}' was to be read as a feature cleaner, but its {store.CONFIG} names "
            "no layer. Train one with a recipe of recipes/restore."
        )
    return said


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
    return attach_cleaner(load_cut(base, cleaner_layer(folder), name=name), folder)


def attach_cleaner(encoder: W2vBertEncoder, folder: Path, any_base: bool = False) -> Cleaner:
    """Attach a saved cleaner to a cut encoder.

    Args:
        encoder: Ends after the layer that the cleaner names.
        folder: What `Cleaner.save` wrote.
        any_base: Also accept other weights of the same family.

    Returns:
        The cleaner, frozen and in evaluation mode.

    Raises:
        CheckpointError: The folder is damaged, is no cleaner, or belongs to another base.
    """
    handle = store.load(encoder, folder, name=NAME, any_base=any_base)
    cleaner = Cleaner(encoder, handle, _stored_front(encoder, store.read(folder)))
    cleaner.trained.requires_grad_(False)
    cleaner.trained.eval()
    return cleaner


def _stored_front(encoder: W2vBertEncoder, stored: store.Stored) -> Front | None:
    said = _head(stored).get("front", {})
    config, problems = bind(FrontConfig, said, "front")
    if problems:
        raise CheckpointError(
            f"the front of '{stored.folder}' cannot be built: {' '.join(problems)} "
            "Use the release of speechadapt that made it, or train it again."
        )
    front = _make_front(encoder, config)
    own = {} if front is None else front.state_dict(keep_vars=True)
    store.fill(own, stored.head, stored.folder / store.WEIGHTS, "the front")
    return front

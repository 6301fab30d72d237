"""Which adapters a recording asks for: an index of cards, distances, weights, and abstaining.

    w = softmax(-d^2 / (2 temperature)) over the `top` nearest        0 for all where none is near

d is the distance to the nearest centroid of an adapter, after whitening: the shrunk covariance of
recordings around their centroid is taken out, every adapter counting alike in it. That is
discriminant analysis with several centroids for a class; where recordings that say the same share
one, what is left is how voices, rooms and microphones differ. Whether the nearest adapter is near
at all is judged by how far its own examples lie (`strangeness`: 1 is as far as most of them).

Source: Zhu and Martinez, Subclass discriminant analysis, PAMI 2006; https://arxiv.org/abs/1807.03888
    (Mahalanobis distance to the nearest class, for what is of none); Ledoit and Wolf 2004 for the
    shrinkage
Differs: centroids are of recordings with one transcript, not of clusters; no axes are dropped.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.composite_store import fingerprint
from speechadapt.adapters.handle import base_of
from speechadapt.adapters.retrieval import Described, RetrievalCard, read_card
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json, read_json
from speechadapt.encoders.base import Encoder

INDEX = "adapter_index.json"
WEIGHTS = "adapter_index.safetensors"
FORMAT = "speechadapt adapter index"
FORMAT_VERSION = 2
THRESHOLD = 2.0  # of strangeness, where nothing is known of recordings held out
QUANTILE = 0.9  # of an adapter's own examples: the distance that counts as 1
_LEAST = 1e-6
FEWEST = 3  # examples below which nothing can be said about how far they lie


@dataclass(frozen=True)
class Entry:
    """One adapter of an index.

    Args:
        name: Its name.
        folder: Where it lies, relative to the index.
        fingerprint: What it was when the index was made.
        text: What it is for, in words.
        reach: Whitened distance within which most of its own examples lie.
    """

    name: str
    folder: str
    fingerprint: str
    text: str
    reach: float


@dataclass(frozen=True)
class Index:
    """Adapters that can be found by what a recording sounds like, or by words.

    Args:
        entries: The adapters.
        layers: The layers by which recordings are described.
        base: Fingerprint of the encoder's weights.
        centroids: One or more per adapter, whitened.
        owners: Which adapter every centroid belongs to; each has one.
        shift: Taken from a description before it is whitened.
        whitening: The map that whitens it.
        threshold: Strangeness beyond which nothing is near.
        folder: Where the index lies; None where it was not saved.
    """

    entries: tuple[Entry, ...]
    layers: tuple[int, ...]
    base: str
    centroids: Float[Tensor, "groups whitened"]
    owners: Int[Tensor, " groups"]
    shift: Float[Tensor, " size"]
    whitening: Float[Tensor, "size whitened"]
    threshold: float
    folder: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters' names."""
        return tuple(one.name for one in self.entries)

    def distances(self, described: Described) -> Float[Tensor, "clips adapters"]:
        """Return how far recordings are from every adapter; 1 is as far as examples of one lie.

        Args:
            described: From `retrieval.describe_clips`.
        """
        white = (described - self.shift) @ self.whitening
        near = torch.full((len(described), len(self.entries)), math.inf)
        owners = self.owners.expand(len(described), -1)
        near = near.scatter_reduce(1, owners, torch.cdist(white, self.centroids), "amin")
        return near / self._reach().mean()

    def nearest(self, described: Described) -> list[str]:
        """Return the name of the adapter that is nearest to each recording.

        Args:
            described: From `retrieval.describe_clips`.
        """
        return [self.names[place] for place in self.distances(described).argmin(1).tolist()]

    def left_to_base(self, described: Described) -> float:
        """Return the share of recordings to which no adapter is near.

        Args:
            described: From `retrieval.describe_clips`.
        """
        return float((self.strangeness(described) > self.threshold).float().mean())

    def strangeness(self, described: Described) -> Float[Tensor, " clips"]:
        """Return how far recordings are from the nearest adapter, by that adapter's own examples.

        Args:
            described: From `retrieval.describe_clips`.
        """
        near, which = self.distances(described).min(1)
        reach = self._reach()
        return near * reach.mean() / reach[which]

    def _reach(self) -> Float[Tensor, " adapters"]:
        return torch.tensor([one.reach for one in self.entries])

    def weights(
        self,
        described: Described,
        top: int = 1,
        temperature: float = 0.1,
        threshold: float | None = None,
    ) -> Float[Tensor, "clips adapters"]:
        """Return how much every adapter counts for every recording.

        Args:
            described: From `retrieval.describe_clips`.
            top: The most adapters that count for one recording.
            temperature: Above 0; higher shares the weight out more evenly.
            threshold: Strangeness beyond which nothing is near; the index's own where None.
                A recording with nothing near gets zeros: the base alone.
        """
        distance = self.distances(described)
        near = distance.min(1, keepdim=True).values
        chosen = distance.topk(min(top, len(self.entries)), dim=1, largest=False).indices
        logits = -(distance.square() - near.square()) / (2 * temperature)
        kept = torch.full_like(logits, -math.inf).scatter(1, chosen, logits.gather(1, chosen))
        limit = self.threshold if threshold is None else threshold
        strange = self.strangeness(described)[:, None] > limit
        return torch.where(strange, 0.0, kept.softmax(1))

    def search(self, words: str) -> list[tuple[str, float]]:
        """Return the adapters whose cards speak of what is searched for, best first.

        A word that few cards have counts more; one that begins another counts half.

        Args:
            words: Any words.
        """
        texts = [_words(f"{one.name} {one.text}") for one in self.entries]
        wanted = _words(words)
        scores = []
        for entry, text in zip(self.entries, texts, strict=True):
            score = sum(_found(word, text) * _rarity(word, texts) for word in wanted)
            if score > 0:
                scores.append((entry.name, score))
        return sorted(scores, key=lambda pair: (-pair[1], pair[0]))

    def calibrated(self, described: Described, rejected: float = 0.05) -> Index:
        """Return the index with the threshold that abstains on this share of known recordings.

        Args:
            described: Recordings that some adapter is for, which no card was made from.
            rejected: Share of them that may be taken for unknown.

        Raises:
            ConfigError: There is no recording.
        """
        if not len(described):
            raise ConfigError("a threshold was to be chosen from recordings, but none were given.")
        return replace(self, threshold=float(self.strangeness(described).quantile(1 - rejected)))

    def part_folder(self, entry: Entry) -> Path:
        """Return where an adapter lies."""
        return (self.folder or Path()) / entry.folder


def build_index(
    encoder: Encoder, folders: Sequence[Path], target: Path, threshold: float = THRESHOLD
) -> Index:
    """Make and write an index of adapters that have cards.

    Args:
        encoder: What they were trained on.
        folders: Their folders.
        target: Where to write; made where it is missing.
        threshold: Strangeness beyond which nothing is near.

    Raises:
        ConfigError: No adapter was given, or two have one name.
        CheckpointError: One has no card, or its card is of another base or layer.
    """
    if not folders:
        raise ConfigError("an index of no adapters was asked for. Name the adapters' folders.")
    cards = [read_card(folder) for folder in folders]
    base = str(base_of(encoder)["fingerprint"])
    _check_cards(cards, base)
    shift, whitening, own_share = whiten(cards)
    entries = []
    for card, folder in zip(cards, folders, strict=True):
        stored = store.read(folder)
        store.check_base(encoder, stored)
        where = os.path.relpath(folder.resolve(), target.resolve())
        reach = reach_of(card, whitening, own_share / len(cards))
        entries.append(Entry(card.name, where, fingerprint(stored), card.text, reach))
    places = placed(cards, shift, whitening)
    layers = cards[0].layers
    index = Index(tuple(entries), layers, base, *places, shift, whitening, threshold, target)
    save_index(index, target)
    return index


def save_index(index: Index, folder: Path) -> Path:
    """Write an index.

    Args:
        index: The index.
        folder: Made where it is missing.
    """
    tensors = {"centroids": index.centroids, "owners": index.owners}
    tensors |= {"shift": index.shift, "whitening": index.whitening}
    plain = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    atomic_write(folder / WEIGHTS, lambda path: save_file(plain, path, {"format": "pt"}))
    facts = {"format": FORMAT, "format_version": FORMAT_VERSION}
    facts |= {"layers": list(index.layers), "base": index.base, "threshold": index.threshold}
    atomic_write_json(folder / INDEX, facts | {"adapters": [asdict(one) for one in index.entries]})
    return folder


def read_index(folder: Path) -> Index:
    """Read an index.

    Args:
        folder: A folder that `save_index` wrote.

    Raises:
        CheckpointError: It is missing or damaged.
        ConfigError: It is empty.
    """
    try:
        facts = read_json(folder / INDEX)
        found = facts["format"], facts["format_version"]
        if found != (FORMAT, FORMAT_VERSION):
            raise ValueError(
                f"{found[0]}, version {found[1]}; this release reads {FORMAT}, version "
                f"{FORMAT_VERSION}"
            )
        entries = tuple(Entry(**row) for row in facts["adapters"])
        tensors = store.read_tensors(folder, WEIGHTS)
        index = Index(
            entries,
            tuple(int(layer) for layer in facts["layers"]),
            str(facts["base"]),
            tensors["centroids"],
            tensors["owners"],
            tensors["shift"],
            tensors["whitening"],
            float(facts["threshold"]),
            folder,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"'{folder}' was to be read as an index of adapters, but: {type(error).__name__}: "
            f"{error}. Make one with: speechadapt adapters index."
        ) from error
    if not entries:
        raise ConfigError(f"the index '{folder}' holds no adapter. Make it again with some.")
    return index


def _check_cards(cards: Sequence[RetrievalCard], base: str) -> None:
    first, names = cards[0], [card.name for card in cards]
    for card in cards:
        if card.base != base:
            raise CheckpointError(
                f"the card of '{card.name}' was made with the weights {card.base[:8]}..., this "
                f"encoder has {base[:8]}.... Make it again with this one."
            )
        if card.layers != first.layers:
            raise CheckpointError(
                f"the card of '{card.name}' is of the layers {_listed(card.layers)}, that of "
                f"'{first.name}' of {_listed(first.layers)}. Make them with the same layers."
            )
        if names.count(card.name) > 1:
            raise ConfigError(f"two adapters of the index are called '{card.name}'. Rename one.")


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def whiten(
    cards: Sequence[RetrievalCard],
) -> tuple[Float[Tensor, " size"], Float[Tensor, "size whitened"], float]:
    """Return what is taken from a description, and the map after which residuals are white.

    Args:
        cards: Of one base and the same layers.

    Returns:
        The shift, the map, and the share of the covariance that is of the recordings; the rest of
        it is shrinkage. The share is 0 where the spread alone is known.
    """
    shift = torch.stack([card.centroids.mean(0) for card in cards]).mean(0)
    # an adapter of few recordings counts as much as one of many
    residuals = [card.residuals / math.sqrt(len(card.residuals)) for card in cards]
    within = torch.cat(residuals) * math.sqrt(sum(map(len, residuals)) / len(cards))
    pooled = within.square().mean(0).sqrt()
    # what never varies within an adapter would be divided by nothing
    scale = torch.where(pooled > _LEAST, 1 / pooled.clamp(min=_LEAST), 0.0)
    within = within * scale
    if len(within) < FEWEST * len(cards):
        return shift, torch.diag(scale), 0.0
    from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]

    shrunk, shrinkage = ledoit_wolf(within.double().numpy(), assume_centered=True)
    covariance = torch.from_numpy(shrunk)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=float(values.max()) * _LEAST)
    return shift, (scale.double()[:, None] * vectors / values.sqrt()).float(), 1 - float(shrinkage)


def placed(
    cards: Sequence[RetrievalCard], shift: Tensor, whitening: Tensor
) -> tuple[Float[Tensor, "groups whitened"], Int[Tensor, " groups"]]:
    """Return the whitened centroids of all cards, and which card each is of.

    Args:
        cards: Of one base and the same layers.
        shift: Of shape `[size]`, from `whiten`.
        whitening: Of shape `[size, whitened]`, from `whiten`.
    """
    centroids = torch.cat([(card.centroids - shift) @ whitening for card in cards])
    sizes = torch.tensor([len(card.centroids) for card in cards])
    return centroids, torch.arange(len(cards)).repeat_interleave(sizes)


def reach_of(card: RetrievalCard, whitening: Tensor, own_share: float) -> float:
    """Return the distance within which most recordings like an adapter's own would lie.

    An example took part in the covariance and in the mean that it is measured by, and pulls both to
    itself; of few recordings each pulls hard. What it did is taken back (Sherman and Morrison):

        without = (n / (n - 1))^2 d^2 / (1 - weight d^2)

    weight is the example's in the covariance, n the number of recordings of its mean.

    Args:
        card: The adapter's card.
        whitening: Of shape `[size, whitened]`, from `whiten`.
        own_share: The adapter's share of the covariance.
    """
    if len(card.examples) < FEWEST:
        return math.sqrt(whitening.shape[1])
    squared = (card.residuals @ whitening).square().sum(1)
    left = 1 - own_share / len(card.examples) * squared
    alike = torch.bincount(card.groups)[card.groups] * card.count / len(card.examples)
    alike = alike.clamp(min=2.0)
    own = (squared / left.clamp(min=_LEAST)).sqrt() * alike / (alike - 1)
    return max(float(own.quantile(QUANTILE)), _LEAST)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower().replace("_", " ")))


def _found(word: str, text: set[str]) -> float:
    if word in text:
        return 1.0
    begins = any(one.startswith(word) or word.startswith(one) for one in text if len(one) > 2)
    return 0.5 if begins and len(word) > 2 else 0.0


def _rarity(word: str, texts: Sequence[set[str]]) -> float:
    having = sum(_found(word, text) > 0 for text in texts)
    return math.log(1 + len(texts) / max(1, having))

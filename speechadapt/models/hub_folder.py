"""What a folder must be before it goes to a model hub, and after it came from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from speechadapt.adapters import store
from speechadapt.adapters.card_head import RECOGNITION, CardHead, Figure, adapter_head
from speechadapt.adapters.composite_store import (
    PARTS,
    StoredComposition,
    fingerprint,
    is_composition,
    read_composite,
)
from speechadapt.adapters.retrieval_index import INDEX
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import hash_file, read_json
from speechadapt.models.build import RESTORER_TYPE
from speechadapt.models.card import CARD_FILE, ModelCard, read_card
from speechadapt.models.restorer_folder import read_restorer

if TYPE_CHECKING:
    from speechadapt.encoders.base import Encoder

_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"


def check_adapter(folder: Path, base: Encoder | None = None) -> CardHead:
    """Check the folder of a saved adapter, head or composition.

    Args:
        folder: The folder.
        base: The encoder it is to be for; None leaves that unchecked.

    Returns:
        What a card's head says of it.

    Raises:
        CheckpointError: It is damaged, is something else, belongs to another base, or is a
            composition without its parts.
    """
    if (folder / INDEX).is_file():
        raise CheckpointError(
            f"'{folder}' is an index of adapters, which names folders of this machine. Send the "
            "adapters themselves; an index is made again from their folders."
        )
    if is_composition(folder):
        whole = read_composite(folder)
        adapters, details = _parts(whole), whole.details
    else:
        one = store.read(folder)
        adapters, details = [one], one.details
    if base is not None:
        for one in adapters:
            store.check_base(base, one)
    return adapter_head(folder.resolve().name, details)


def check_model(folder: Path) -> CardHead:
    """Check a model folder: its configuration, and its weights up to their last byte.

    Args:
        folder: The folder.

    Returns:
        What a card's head says of it.

    Raises:
        CheckpointError: It is damaged, incomplete, or has no safetensors.
    """
    try:
        config = read_json(folder / "config.json")
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{folder}' was to be a model folder, but its config.json is missing or names no "
            f"model_type ({type(error).__name__}: {error})."
        ) from error
    if kind == RESTORER_TYPE:
        read_restorer(folder)
    _check_weights(folder)
    if not (folder / CARD_FILE).is_file():
        return CardHead(folder.resolve().name, tags=("speech", str(kind)))
    card = read_card(folder)
    path = folder / _WEIGHTS
    if card.weights_sha256 and path.is_file() and hash_file(path) != card.weights_sha256:
        raise CheckpointError(
            f"'{path}' has other weights than {CARD_FILE} says ({card.weights_sha256[:8]}...). It "
            "was changed or cut short; copy it again, or write the card anew."
        )
    return _model_head(card, kind == RESTORER_TYPE)


def _parts(whole: StoredComposition) -> list[store.Stored]:
    missing = [part.name for part in whole.parts if not part.bundled]
    if missing:
        raise CheckpointError(
            f"the composition '{whole.folder}' refers to {', '.join(missing)}, which lie "
            "elsewhere. Save it with its parts: speechadapt adapters fuse ... --bundle."
        )
    adapters = []
    for part in whole.parts:
        one = store.read(whole.folder / PARTS / part.name)
        if fingerprint(one) != part.fingerprint:
            raise CheckpointError(
                f"'{one.folder}' is another adapter than when the composition was made. "
                "Save the composition again."
            )
        adapters.append(one)
    return adapters


def _check_weights(folder: Path) -> None:
    wanted = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
    if (folder / _SHARDS).is_file():
        try:
            wanted |= set(read_json(folder / _SHARDS)["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"'{folder / _SHARDS}' names no weights: {error}.") from error
    if not wanted:
        raise CheckpointError(
            f"'{folder}' was to be a model folder, but holds no safetensors. Weights in other "
            "files are not read; save them with transformers' save_pretrained."
        )
    for name in sorted(wanted):
        try:
            with safe_open(folder / name, "pt") as weights:
                found = len(weights.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"'{folder / name}' cannot be read as safetensors: {error}. Copy it again."
            ) from error
        if not found:
            raise CheckpointError(f"'{folder / name}' holds no tensor.")


def _model_head(card: ModelCard, restores: bool) -> CardHead:
    return CardHead(
        name=card.name,
        task=RECOGNITION if card.decoder else "audio-to-audio" if restores else "",
        tags=tuple(tag for tag in ("speech", card.encoder, card.decoder) if tag),
        languages=card.languages,
        licence=card.licence,
        figures=tuple(Figure(one.test_set, one.metric, one.value) for one in card.scores),
    )

"""Restorers on disk: putting a trained cleaner and a trained vocoder together, and loading them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechadapt.adapters import store
from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.encoders.source import quiet_progress
from speechadapt.models.build import RESTORER, RESTORER_TYPE, find_model
from speechadapt.models.card import bundled_models
from speechadapt.models.restorer import Restorer
from speechadapt.restoration.cleaner import Cleaner, attach_cleaner, cleaner_layer, load_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.request import SIGNALS, SignalName
from speechadapt.restoration.vocoder_folder import load_vocoder, read_vocoder, save_vocoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechadapt.encoders.w2v_bert import W2vBertEncoder

CONFIG = "config.json"
FORMAT = "speechadapt restorer"
_PARTS = ("encoder", "cleaner", "vocoder")


def assemble(
    cleaner: Path,
    vocoder: Path,
    folder: Path,
    *,
    base: str | Path | None = None,
    half: bool = False,
    keeps_encoder: bool = True,
    signal: SignalName = "generated",
) -> Path:
    """Put a trained cleaner and a trained vocoder together as a restorer.

    Args:
        cleaner: Folder of the cleaner.
        vocoder: Folder of the vocoder.
        folder: The restorer's; is made, and what it held of a restorer is replaced.
        base: The frozen encoder: a bundled model, a folder or a hub id; None takes the one that
            the cleaner names.
        half: Store all weights in half precision, as bundled models are.
        keeps_encoder: Store the encoder's layers too, so that the folder stands alone; otherwise
            they are read from the base by its name, which must be a bundled one or a hub id.
        signal: What comes out where nobody says: see `RestoreConfig`.

    Returns:
        `folder`.

    Raises:
        CatalogError: The encoder is not there.
        CheckpointError: A folder is damaged, the encoder is another one, or the vocoder was made
            for other features.
    """
    stored, features = store.read(cleaner).base, read_vocoder(vocoder)["features"]
    layer = cleaner_layer(cleaner)
    _check_same_features(stored, layer, features)
    named = stored.get("name") if base is None else base
    known = load_cleaner(cleaner, find_model(named))
    if not keeps_encoder:
        find_model(stored.get("name"))  # a name that says nothing elsewhere fails here
    for name in _PARTS:
        shutil.rmtree(folder / name, ignore_errors=True)
    dtype = torch.float16 if half else torch.float32
    _write_cleaner(known, cleaner, folder, dtype, keeps_encoder)
    made = load_vocoder(vocoder)
    save_vocoder(made.to(dtype), folder / "vocoder", features)
    facts = {
        "format": FORMAT,
        "version": 1,
        "model_type": RESTORER_TYPE,
        "base": stored,
        "layer": layer,
        "keeps_encoder": keeps_encoder,
        "sample_rate": made.speech.sample_rate,
        "signal": signal,
    }
    atomic_write_json(folder / CONFIG, facts)
    return folder


def load_restorer(folder: Path) -> Restorer:
    """Load a restorer.

    Args:
        folder: What `assemble` wrote.

    Returns:
        The restorer, on the CPU.

    Raises:
        CatalogError: It keeps no encoder, and its base is not there.
        CheckpointError: The folder is damaged, or holds something else.
    """
    base, name = find_encoder(folder)
    signal = read_restorer(folder).get("signal", SIGNALS[0])
    if signal not in SIGNALS:
        raise CheckpointError(
            f"'{folder}' says signal {signal!r}; this release knows {', '.join(SIGNALS)}."
        )
    cleaner = load_cleaner(folder / "cleaner", base, name)
    return Restorer(cleaner, load_vocoder(folder / "vocoder"), signal)


def find_encoder(folder: Path) -> tuple[Path, str | None]:
    """Return the folder of a restorer's encoder, and what it is called where it is another's.

    Args:
        folder: What `assemble` wrote.

    Raises:
        CatalogError: It keeps no encoder, and its base is not there.
        CheckpointError: It holds no restorer.
    """
    facts = read_restorer(folder)
    if facts.get("keeps_encoder", True):
        return folder / "encoder", None
    name = str(facts["base"]["name"])
    return find_model(name), name


def read_restorer(folder: Path) -> dict[str, Any]:
    """Return what a folder says about the restorer it holds.

    Args:
        folder: What `assemble` wrote.

    Raises:
        CheckpointError: It holds none that this release reads.
    """
    try:
        facts: dict[str, Any] = read_json(folder / CONFIG)
        known = facts.get("format") == FORMAT and facts["version"] == 1
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"'{folder}' was to be read as a restorer, but: {error}") from error
    if not known:
        raise CheckpointError(
            f"'{folder}' was to be read as a restorer, but its {CONFIG} says "
            f"format {facts.get('format')!r}, version {facts.get('version')!r}. Make one with "
            "`models.restorer_folder.assemble`."
        )
    return facts


def find_restorer(name: str | Path | None = None) -> Path:
    """Return the folder of a restorer.

    Args:
        name: A bundled one or a folder; None means `mini-restorer`.

    Raises:
        CatalogError: There is none of that name.
    """
    asked = RESTORER if name is None else str(name)
    bundled = bundled_models()
    if asked in bundled:
        return bundled[asked]
    folder = Path(asked).expanduser()
    if folder.is_dir():
        return folder
    if asked == RESTORER:
        raise CatalogError(
            f"'{RESTORER}' did not come with this release: it is not trained yet. Train a cleaner "
            "and a vocoder by recipes/restore, put them together "
            "(`speechadapt.models.restorer_folder.assemble`), and give --model FOLDER."
        )
    found = [key for key in bundled if (bundled[key] / "vocoder").is_dir()]
    more = f" Bundled restorers: {', '.join(found)}." if found else ""
    raise CatalogError(f"there is no restorer's folder '{asked}'.{more}")


def _check_same_features(base: Mapping[str, Any], layer: int, features: Mapping[str, Any]) -> None:
    """Refuse a vocoder that was trained on other features than a cleaner gives."""
    theirs: Mapping[str, Any] = features.get("base", {})
    if features.get("layer") != layer or theirs.get("files") != base.get("files"):
        raise CheckpointError(
            f"the cleaner gives features of layer {layer} of {base.get('name')} "
            f"({str(base.get('files'))[:8]}...), the vocoder reads layer {features.get('layer')} "
            f"of {theirs.get('name')} ({str(theirs.get('files'))[:8]}...). Train them on the same."
        )


def _write_cleaner(
    known: Cleaner, source: Path, folder: Path, dtype: torch.dtype, keeps_encoder: bool
) -> None:
    """Write the cleaner, and the encoder's layers where they are kept."""
    if keeps_encoder:
        cut = _write_encoder(known.encoder, folder / "encoder", dtype)
        known = attach_cleaner(cut, source, any_base=True)
    known.trained.to(dtype)
    training, scores = (known.handle.notes.get(key) for key in ("training", "scores"))
    known.save(folder / "cleaner", training, scores)


def _write_encoder(encoder: W2vBertEncoder, folder: Path, dtype: torch.dtype) -> W2vBertEncoder:
    """Write the kept layers as a model folder, and load them from there, as a user will."""
    with quiet_progress():
        encoder.model.to(dtype).save_pretrained(folder)
    encoder.extractor.save_pretrained(folder)
    return load_cut(folder, int(encoder.model.config.num_hidden_layers))

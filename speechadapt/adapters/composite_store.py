"""Compositions on disk: their own tensors, and references to the adapters they are made of.

    composition.json                 the composition as text; each part's id and fingerprint
    README.md                        a model card
    composition.safetensors          what the composition adds: <composition>|<role>:<parameter>
    parts/<id>/                      the adapters themselves, where they were bundled

An adapter's id is the name it has in the composition; its fingerprint is taken over its method,
settings, sites and tensors. Loading finds every part and refuses one that is another than when the
composition was made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.attach import remove, use
from speechadapt.adapters.card import composition_card
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composition import Composition, Single, leaves, parse
from speechadapt.adapters.handle import Handle, attachment, attachments, base_of
from speechadapt.adapters.packed import file_tensors
from speechadapt.adapters.routing import Names
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import (
    atomic_write,
    atomic_write_json,
    atomic_write_text,
    hash_json,
    read_json,
)
from speechadapt.encoders.base import Encoder

CONFIG = "composition.json"
WEIGHTS = "composition.safetensors"
PARTS = "parts"
FORMAT = "speechadapt composition"
FORMAT_VERSION = 1
HEAD = "head|"


@dataclass(frozen=True)
class StoredPart:
    """One adapter that a saved composition refers to.

    Args:
        name: Its id.
        fingerprint: What it was when the composition was made.
        method: Its method.
        folder: Where it lay, relative to the composition's folder; empty where nobody knows.
        bundled: Whether it lies under `parts/`.
    """

    name: str
    fingerprint: str
    method: str
    folder: str = ""
    bundled: bool = False


@dataclass(frozen=True)
class StoredComposition:
    """A saved composition as it lies on disk.

    Args:
        folder: Where.
        composition: What it is.
        parts: Its adapters.
        tensors: Its own tensors, by composition, role and parameter.
        head: Tensors of a head saved along.
        details: The whole of `composition.json`.
    """

    folder: Path
    composition: Composition
    parts: tuple[StoredPart, ...]
    tensors: Mapping[str, Tensor]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def part_folder(self, part: StoredPart, given: Mapping[str, Path]) -> Path:
        """Return where a part lies.

        Args:
            part: The part.
            given: Folders by id, which go before what the file says.

        Raises:
            CheckpointError: It is nowhere; the message says where it was looked for.
        """
        places = [given[part.name]] if part.name in given else []
        if part.bundled:
            places.append(self.folder / PARTS / part.name)
        places += [self.folder / part.folder] if part.folder else []
        places.append(self.folder.parent / part.name)
        for place in places:
            if (place / store.CONFIG).is_file():
                return place
        raise CheckpointError(
            f"composition '{self.folder.name}' is made of '{part.name}' ({part.method}), which is "
            f"in none of {', '.join(map(str, places))}. Name its folder, or save the composition "
            "with its parts (--bundle)."
        )


def is_composition(folder: Path) -> bool:
    """Return whether a folder holds a saved composition."""
    return (folder / CONFIG).is_file()


def fingerprint(adapter: Handle | store.Stored) -> str:
    """Return what tells an adapter from every other: method, settings, sites and tensors.

    A head saved along does not count.

    Args:
        adapter: An attachment, or an adapter on disk.
    """
    if isinstance(adapter, Handle):
        settings, tensors = asdict(adapter.config), file_tensors(adapter)
        method, number = adapter.method_name, adapter.method.version
        sites = [site.role for site in (*adapter.sites, *adapter.norm_sites)]
    else:
        settings, tensors = dict(adapter.config), dict(adapter.tensors)
        method, number = adapter.method, adapter.details["method_version"]
        sites = [*adapter.sites, *adapter.norm_sites]
    digest = hashlib.sha256(hash_json([method, number, settings, sites]).encode())
    for key, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{key}|{values.dtype}|{tuple(values.shape)}|".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_composite(
    encoder: Encoder,
    composition: str | Composition,
    folder: Path,
    *,
    bundle: bool = False,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    head: Mapping[str, Tensor] | None = None,
    head_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a composition that stands on an encoder.

    Args:
        encoder: With the composition attached by `compose`.
        composition: What was composed.
        folder: Is made; files of an earlier save are replaced.
        bundle: Also write every adapter into the folder, so that nothing else is needed.
        training: What it was trained on and how, as JSON values.
        scores: What it scored where, as JSON values.
        head: Tensors of a head to save along.
        head_config: What reads that head, as JSON values.

    Returns:
        `folder`.

    Raises:
        CatalogError: An adapter of the composition is not attached.
        CheckpointError: A tensor holds NaN or infinity, or without `bundle` an adapter in memory is
            another than the one in the folder it was loaded from.
    """
    value = parse(composition) if isinstance(composition, str) else composition
    parts = [attachment(encoder, name) for name in leaves(value)]
    folder.mkdir(parents=True, exist_ok=True)
    stored = [_refer(part, folder, bundle) for part in parts]
    tensors = {key: store.plain(one) for key, one in _own(encoder, value).items()}
    parameters = sum(one.numel() for one in tensors.values())
    tensors |= {HEAD + key: store.plain(one) for key, one in (head or {}).items()}
    store.check_finite(tensors, f"composition '{value}'", "Nothing was saved.")
    atomic_write(folder / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    details = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "composition": str(value),
        "parts": {part.name: _row(part) for part in stored},
        "parameters": parameters,
        "base": base_of(encoder),
        "training": dict(training or {}),
        "scores": dict(scores or {}),
        "head": None if head is None else dict(head_config or {}),
        "versions": {name: version(name) for name in ("speechadapt", "torch", "transformers")},
    }
    atomic_write_text(folder / "README.md", composition_card(folder.name, details))
    atomic_write_json(folder / CONFIG, details)
    return folder


def read_composite(folder: Path) -> StoredComposition:
    """Read a saved composition without its base or its parts.

    Args:
        folder: A folder that `save_composite` wrote.

    Raises:
        CheckpointError: A file is missing, damaged, from a newer format or holds NaN.
    """
    path = folder / CONFIG
    try:
        details = read_json(path)
        if details["format"] != FORMAT or details["format_version"] > FORMAT_VERSION:
            raise ValueError(f"format {details['format']} {details['format_version']}")
        parts = tuple(StoredPart(name, **row) for name, row in details["parts"].items())
        composition = parse(details["composition"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"'{folder}' was to be read as a composition, but its {CONFIG} cannot be used: "
            f"{type(error).__name__}: {error}. It is damaged or of a newer release."
        ) from error
    tensors = store.read_tensors(folder, WEIGHTS)
    return StoredComposition(
        folder,
        composition,
        parts,
        {key: one for key, one in tensors.items() if not key.startswith(HEAD)},
        {key.removeprefix(HEAD): one for key, one in tensors.items() if key.startswith(HEAD)},
        details,
    )


def load_composite(
    encoder: Encoder,
    folder: Path,
    *,
    name: str | None = None,
    parts: Mapping[str, Path] | None = None,
    activate: bool = True,
) -> Names:
    """Attach a saved composition with all its adapters.

    Adapters that are attached already under their ids are taken if they are the same. On any error
    the encoder is as it was.

    Args:
        encoder: The encoder its adapters were trained on.
        folder: A folder that `save_composite` wrote.
        name: What to call the composition's attachment; its text where None.
        parts: Folders of adapters by id, where they lie elsewhere now.
        activate: Whether it acts wherever no `active` says otherwise.

    Returns:
        The names that act, one after the other.

    Raises:
        CheckpointError: A part is missing, belongs to another base, or has changed since.
    """
    stored = read_composite(folder)
    before = set(attachments(encoder))
    try:
        for part in stored.parts:
            _attach(encoder, stored, part, parts or {})
        names = compose(encoder, stored.composition, name=name, activate=False)
        whose = f"the composition {stored.composition}"
        own = _own(encoder, stored.composition, set(attachments(encoder)) - before)
        store.fill(own, stored.tensors, folder / WEIGHTS, whose)
    except Exception:
        for fresh in set(attachments(encoder)) - before:
            remove(encoder, fresh)
        raise
    for fresh in set(attachments(encoder)) - before:
        attachment(encoder, fresh).module.eval()
    if activate:
        use(encoder, names)
    return names


def _attach(
    encoder: Encoder, stored: StoredComposition, part: StoredPart, given: Mapping[str, Path]
) -> None:
    if part.name in attachments(encoder):
        _check(stored, part, attachment(encoder, part.name), "on the encoder")
        return
    folder = stored.part_folder(part, given)
    _check(stored, part, store.read(folder), f"in {folder}")
    store.load(encoder, folder, name=part.name, activate=False)


def _check(
    stored: StoredComposition, part: StoredPart, found: Handle | store.Stored, where: str
) -> None:
    mark = fingerprint(found)
    if mark != part.fingerprint:
        raise CheckpointError(
            f"composition '{stored.folder.name}' was made with '{part.name}' "
            f"({part.fingerprint[:8]}...), but the one {where} is another ({mark[:8]}...): it "
            "changed since. Restore it, or train the composition again."
        )


def _refer(part: Handle, folder: Path, bundle: bool) -> StoredPart:
    mark = fingerprint(part)
    if bundle:
        store.save(part, folder / PARTS / part.name)
        return StoredPart(part.name, mark, part.method_name, bundled=True)
    source = part.notes.get("folder")
    if source is None or not Path(source).is_dir():
        return StoredPart(part.name, mark, part.method_name)
    if fingerprint(store.read(Path(source))) != mark:
        raise CheckpointError(
            f"a composition with '{part.name}' was to be saved by reference, but that adapter was "
            f"changed since it was loaded from '{source}'. Save it again first, or bundle it."
        )
    where = os.path.relpath(source, folder.resolve())
    return StoredPart(part.name, mark, part.method_name, where)


def _row(part: StoredPart) -> dict[str, Any]:
    row = asdict(part)
    del row["name"]
    return row


def _own(
    encoder: Encoder, value: Composition, among: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Return the tensors of the attachments that a composition made, by their texts."""
    texts = _texts(value)
    chosen = (
        attachments(encoder) if among is None else {one: attachment(encoder, one) for one in among}
    )
    return {
        f"{handle.composition}|{key}": tensor
        for handle in chosen.values()
        if handle.composition in texts
        for key, tensor in handle.module.tensors().items()
    }


def _texts(value: Composition) -> set[str]:
    if isinstance(value, Single):
        return set()
    return {str(value)}.union(*(_texts(part) for part in value.parts))

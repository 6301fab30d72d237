"""From what a person writes after `--adapter` to what is put on the encoder.

That is a folder (an adapter, a head, a saved composition), or a composition of folders such as
`fuse(runs/digits/best, runs/orders/best)` or `auto(index/)`. Adapters composed must belong to one
base and have one head between them, which is then the recogniser's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from speechadapt.adapters import composite_store, store
from speechadapt.adapters.composed import compose
from speechadapt.adapters.composition import Composition, Single, leaves, parse, renamed
from speechadapt.adapters.retrieval_index import Index, read_index
from speechadapt.adapters.routing import Names
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.models.adapted import attach_saved

_OF_RUNS = ("best", "last")  # folders that a run leaves, named for the run above them
ROUTE = "route"


@dataclass(frozen=True)
class Wanted:
    """What is to be put on the encoder.

    Args:
        stored: What says which base and which head: the adapter, or the first of several.
        attach: Puts it there and says what acts; None where that need not be said.
    """

    stored: store.Stored
    attach: Callable[[Encoder], Names | None]


def read_wanted(text: str) -> Wanted:
    """Read what is to be put on the encoder.

    Args:
        text: A folder, or a composition of folders.

    Raises:
        ConfigError: It cannot be read, or its adapters do not go together.
        CheckpointError: A folder is missing or damaged.
    """
    folder = Path(text).expanduser()
    if composite_store.is_composition(folder):
        return _saved(folder)
    if folder.is_dir() or not ("(" in text or text == "auto"):
        stored = store.read(folder)
        return Wanted(stored, partial(_attach_alone, stored))
    value = parse(text)
    folders = {called(Path(name)): Path(name).expanduser() for name in _adapters(value)}
    if len(folders) < len(_adapters(value)):
        raise ConfigError(f"'{text}' names two adapters of one name. Rename a folder.")
    found = [store.read(one) for one in folders.values()]
    found += [store.read(one.part_folder(entry)) for one in _routes(value) for entry in one.entries]
    if not found:
        raise ConfigError(f"'{text}' names no adapter. Write auto(DIR), with an index's folder.")
    _check_together(text, found)
    names = {name: called(Path(name)) for name in _adapters(value)}

    def attach(encoder: Encoder) -> Names:
        for name, one in folders.items():
            store.load(encoder, one, name=name, activate=False)
        return compose(encoder, renamed(value, names))

    return Wanted(found[0], attach)


def _attach_alone(stored: store.Stored, encoder: Encoder) -> None:
    attach_saved(encoder, stored)


def _saved(folder: Path) -> Wanted:
    saved = composite_store.read_composite(folder)
    found = [store.read(saved.part_folder(part, {})) for part in saved.parts]
    first = found[0]
    if saved.head:
        details = dict(first.details) | {"head": saved.details["head"]}
        first = replace(first, head=saved.head, details=details)
    else:
        _check_together(str(folder), found)
    return Wanted(first, lambda encoder: composite_store.load_composite(encoder, folder))


def _adapters(value: Composition) -> tuple[str, ...]:
    """Return the folders of adapters in a composition; those of indices are none."""
    if isinstance(value, Single):
        return (value.name,)
    if value.kind == ROUTE:
        return ()
    return tuple(dict.fromkeys(name for part in value.parts for name in _adapters(part)))


def _routes(value: Composition) -> list[Index]:
    if isinstance(value, Single):
        return []
    if value.kind == ROUTE:
        return [read_index(Path(name).expanduser()) for name in leaves(value)]
    return [one for part in value.parts for one in _routes(part)]


def called(folder: Path) -> str:
    """Return what the adapter in a folder is called: the folder, or of a run's the run above it.

    Args:
        folder: The adapter's folder.
    """
    resolved = folder.expanduser().resolve()
    name = resolved.parent.name if resolved.name in _OF_RUNS else resolved.name
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-._") or "adapter"


def _check_together(text: str, found: Sequence[store.Stored]) -> None:
    first = found[0]
    for other in found[1:]:
        if other.base.get("fingerprint") != first.base.get("fingerprint"):
            raise ConfigError(
                f"'{text}' composes adapters of unlike bases: '{first.folder}' belongs to "
                f"{_base(first)}, '{other.folder}' to {_base(other)}. Compose those of one base."
            )
        same = other.head.keys() == first.head.keys() and all(
            torch.equal(tensor, other.head[key]) for key, tensor in first.head.items()
        )
        if not same or other.details.get("head") != first.details.get("head"):
            raise ConfigError(
                f"'{text}' composes adapters with unlike heads: '{first.folder}' and "
                f"'{other.folder}'. Train them with one frozen head, or train the composition."
            )


def _base(stored: store.Stored) -> str:
    name = stored.base.get("name") or "a model built in memory"
    return f"{name} ({stored.base.get('family')}, {str(stored.base.get('fingerprint'))[:8]}...)"

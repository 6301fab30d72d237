"""Adapters on disk: one folder each, the adapter's own tensors and what they belong to.

    adapter_model.safetensors    <role>:<parameter>, shared:<parameter>, head:<parameter>; a method
                                 may pack the parameters of a role (`Method.pack`)
    adapter_config.json          method, settings, roles, base and its fingerprint, versions, scores
    README.md                    a model card

Roles outlive renamed modules, so a file stays readable when transformers moves things. Nothing is
ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from speechadapt.adapters.attach import build, install
from speechadapt.adapters.card import card
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import Handle, base_of
from speechadapt.adapters.packed import file_tensors, unpacked
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json, atomic_write_text, read_json
from speechadapt.encoders.base import Encoder

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FORMAT = "speechadapt"
FORMAT_VERSION = 1
_HEAD = "head:"


@dataclass(frozen=True)
class Stored:
    """A saved adapter as it lies on disk, read and checked as far as is possible without its base.

    Args:
        folder: Where it lies.
        method: Its method's name.
        config: Its settings as plain values.
        roles: The role patterns it was attached with.
        sites: The roles it stands at.
        train_norms: `none`, `adapted` or `all`.
        norm_sites: The roles of the norms trained beside it.
        base: What it was trained on (see `handle.base_of`).
        tensors: Its tensors by key.
        head: Tensors of a head saved along, without the prefix.
        details: The whole of `adapter_config.json`.
    """

    folder: Path
    method: str
    config: Mapping[str, Any]
    roles: tuple[str, ...]
    sites: tuple[str, ...]
    train_norms: str
    norm_sites: tuple[str, ...]
    base: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Numbers it holds, those of a head left out."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def save(
    handle: Handle,
    folder: Path,
    *,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    head: Mapping[str, Tensor] | None = None,
    head_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write an attachment's tensors, what they belong to, and a model card.

    Args:
        handle: The attachment.
        folder: Is made; files of an earlier save are replaced.
        training: What it was trained on and how, as JSON values.
        scores: What it scored where, as JSON values.
        head: Tensors of a head to save along.
        head_config: What reads that head, as JSON values.

    Returns:
        `folder`.

    Raises:
        CheckpointError: A tensor holds NaN or infinity.
        ConfigError: It is composed of other adapters.
    """
    if handle.composition is not None:
        raise ConfigError(
            f"'{handle.name}' was to be saved as an adapter, but is composed of others "
            f"({handle.composition}). Use composite_store.save_composite."
        )
    tensors = {key: plain(tensor) for key, tensor in file_tensors(handle).items()}
    tensors |= {_HEAD + key: plain(tensor) for key, tensor in (head or {}).items()}
    check_finite(tensors, f"adapter '{handle.name}'", "Nothing was saved.")
    details = describe(handle)
    details |= {
        "training": dict(training or handle.notes.get("training") or {}),
        "scores": dict(scores or handle.notes.get("scores") or {}),
        "head": None if head is None else dict(head_config or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"}  # one entry alone: safetensors writes several in any order
    atomic_write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=metadata))
    atomic_write_text(folder / "README.md", card(handle.name, details))
    atomic_write_json(folder / CONFIG, details)
    return folder


def describe(handle: Handle) -> dict[str, Any]:
    """Return what `adapter_config.json` says about an attachment itself."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "method": handle.method_name,
        "method_version": handle.method.version,
        "config": asdict(handle.config),
        "roles": list(handle.roles),
        "sites": [site.role for site in handle.sites],
        "train_norms": handle.train_norms,
        "norm_sites": [site.role for site in handle.norm_sites],
        "parameters": handle.num_parameters(),
        "source": handle.method.source,
        "base": handle.base or base_of(handle.encoder),
        "versions": {name: version(name) for name in ("speechadapt", "torch", "transformers")},
    }


def read(folder: Path) -> Stored:
    """Read a saved adapter without its base.

    Args:
        folder: A folder that `save` wrote.

    Raises:
        CheckpointError: A file is missing, damaged, from a newer format or holds NaN.
    """
    details = _read_config(folder)
    tensors = read_tensors(folder)
    head = {key.removeprefix(_HEAD): t for key, t in tensors.items() if key.startswith(_HEAD)}
    kinds: dict[str, type] = {"method": str, "config": dict, "train_norms": str, "base": dict}
    kinds |= {"roles": list, "sites": list, "norm_sites": list, "method_version": int}
    for key, kind in kinds.items():
        if not isinstance(details.get(key), kind):
            raise CheckpointError(
                f"'{folder / CONFIG}' should say its {key}, but that is {details.get(key)!r}. "
                "The file is damaged or was edited; save the adapter again."
            )
    return Stored(
        folder=folder,
        method=details["method"],
        config=details["config"],
        roles=tuple(map(str, details["roles"])),
        sites=tuple(map(str, details["sites"])),
        train_norms=details["train_norms"],
        norm_sites=tuple(map(str, details["norm_sites"])),
        base=details["base"],
        tensors={key: t for key, t in tensors.items() if not key.startswith(_HEAD)},
        head=head,
        details=details,
    )


def load(
    encoder: Encoder,
    folder: Path,
    *,
    name: str | None = None,
    any_base: bool = False,
    activate: bool = True,
) -> Handle:
    """Attach a saved adapter to the encoder it was trained on.

    On any error the encoder is as it was.

    Args:
        encoder: An encoder with the weights that the adapter was trained on.
        folder: A folder that `save` wrote.
        name: What to call the attachment; the folder's name where None.
        any_base: Also accept other weights of the same family, on which the adapter does something
            else than it was trained for.
        activate: Whether it acts, alone, wherever no `active` says otherwise.

    Returns:
        The attachment, in evaluation mode; its `notes` hold training, scores and head.

    Raises:
        CheckpointError: The folder is damaged, or belongs to another base or a newer version.
        CatalogError: There is no such method.
        ConfigError: The name is taken.
    """
    stored = read(folder)
    check_base(encoder, stored, any_base)
    method = method_of(stored.method)
    if stored.details["method_version"] != method.version:
        raise CheckpointError(
            f"'{folder}' holds version {stored.details['method_version']} of the method "
            f"'{stored.method}', which is at version {method.version} here. "
            "Use the release of speechadapt that made it, or train it again."
        )
    called = folder.resolve().name if name is None else name
    handle = _built(encoder, stored, called)
    whose = f"the method '{stored.method}'"
    own, kept = unpacked(handle, stored.tensors, folder / WEIGHTS)
    fill(own, kept, folder / WEIGHTS, whose)
    handle.module.eval()
    for subject in ("training", "scores", "head"):
        handle.notes[subject] = stored.details.get(subject)
    handle.notes["folder"] = str(folder.resolve())
    install(handle, activate=activate)
    return handle


def check_base(encoder: Encoder, stored: Stored, any_base: bool = False) -> None:
    """Refuse an adapter that was trained on another encoder.

    Weights are the same if they hold the same numbers. Loaded in another precision they do not, and
    then the files they came from must be the same.

    Args:
        encoder: The encoder it is to be attached to.
        stored: The adapter.
        any_base: Accept other weights of the same family.

    Raises:
        CheckpointError: The family differs or, unless `any_base`, the weights do.
    """
    wanted, found = stored.base, base_of(encoder)
    label = f"{wanted.get('name') or 'a model built in memory'} ({wanted.get('family')})"
    if wanted.get("family") != found["family"]:
        raise CheckpointError(
            f"adapter '{stored.folder.name}' was trained on {label}, this encoder is "
            f"{found['name'] or 'a model built in memory'} ({found['family']}). "
            f"Load it on an encoder of the family {wanted.get('family')}."
        )
    same = wanted.get("fingerprint") == found["fingerprint"]
    if not same and wanted.get("dtype") != found["dtype"]:
        same = found["files"] is not None and wanted.get("files") == found["files"]
    if not same and not any_base:
        raise CheckpointError(
            f"adapter '{stored.folder.name}' was trained on {label} with the weights "
            f"{str(wanted.get('fingerprint'))[:8]}..., this encoder is "
            f"{found['name'] or 'a model built in memory'} with {found['fingerprint'][:8]}.... "
            "Load the base it names."
        )


def _built(encoder: Encoder, stored: Stored, name: str) -> Handle:
    # exact roles, not patterns: a pattern may hit more in a later table of sites
    handle = build(
        encoder,
        stored.method,
        name=name,
        config=stored.config,
        roles=stored.sites,
        train_norms=stored.train_norms,
    )
    norms = tuple(site.role for site in handle.norm_sites)
    if norms != stored.norm_sites:
        raise CheckpointError(
            f"'{stored.folder}' was saved with the norms {list(stored.norm_sites)}, but "
            f"train_norms={stored.train_norms} means {list(norms)} here. The file is damaged."
        )
    handle.roles = stored.roles
    return handle


def fill(own: Mapping[str, Tensor], kept: Mapping[str, Tensor], path: Path, whose: str) -> None:
    """Copy stored tensors into those of a module, all of them or none.

    Args:
        own: The module's tensors by key.
        kept: The stored ones.
        path: The file they come from, for messages.
        whose: What they belong to, for messages.

    Raises:
        CheckpointError: One is missing, too many, or of another shape or kind.
    """
    missing = sorted(own.keys() - kept.keys())
    extra = sorted(kept.keys() - own.keys())
    if missing or extra:
        found = [f"lacks {len(missing)}, first '{missing[0]}'"] if missing else []
        found += [f"has {len(extra)} too many, first '{extra[0]}'"] if extra else []
        raise CheckpointError(
            f"'{path}' should hold {len(own)} tensors of {whose}, but {' and '.join(found)}. "
            "Save it again."
        )
    for key, tensor in own.items():
        one = kept[key]
        if one.shape != tensor.shape or one.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"'{key}' of '{path}' is {one.dtype} {list(one.shape)}, but the encoder and the "
                f"settings want {tensor.dtype} {list(tensor.shape)}."
            )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(kept[key])


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        details = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"'{folder}' was to be read as an adapter, but its {CONFIG} cannot be used: {error}"
        ) from error
    if not isinstance(details, dict) or details.get("format") != FORMAT:
        raise CheckpointError(
            f"'{folder}' was to be read as an adapter of this package, but its {CONFIG} is of "
            "another tool. Convert it first: speechadapt adapters import."
        )
    found = details.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has the format version {found}; up to {FORMAT_VERSION} can be read. "
            "Use a newer release of speechadapt."
        )
    return details


def read_tensors(folder: Path, name: str = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors of a folder's safetensors file, all of them finite.

    Args:
        folder: The folder.
        name: The file in it.

    Raises:
        CheckpointError: It is missing, damaged or holds NaN.
    """
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"'{folder}' was to be read as an adapter, but holds no {name}. "
            "Weights in other files are not read."
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as safetensors: {error}. The file is damaged or cut short; "
            "copy it again."
        ) from error
    check_finite(tensors, f"'{path}'", "The adapter was not attached.")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], what: str, then: str) -> None:
    """Refuse tensors that hold NaN or infinity.

    Args:
        tensors: By key.
        what: What holds them, for the message.
        then: What follows, for the message.

    Raises:
        CheckpointError: One does; the message names it.
    """
    bad = [key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{what} should hold numbers, but {len(bad)} tensors hold NaN or infinity, first "
            f"'{bad[0]}'. {then}"
        )


def plain(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, laid out as a file wants it."""
    return tensor.detach().cpu().contiguous().clone()

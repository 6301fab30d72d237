"""Folding adapters into the frozen weights: in memory, or as an ordinary model folder.

In memory the original tensors are kept beside, so that taking the adapter away restores the encoder
bit for bit. Only here is a base weight ever written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.handle import Handle, attachment, attachments, base_of, router_of
from speechadapt.adapters.norms import NormAdapter
from speechadapt.adapters.norms import weight_delta as norm_delta
from speechadapt.adapters.spec import Adapter, WeightDelta
from speechadapt.core.errors import CheckpointError, ConfigError, SiteError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import locate
from speechadapt.encoders.sites import Site
from speechadapt.encoders.source import quiet_progress

_WEIGHTS = (".safetensors", ".bin", ".safetensors.index.json")
# A merged model is not what the base's card describes and scores.
_OF_THE_BASE = frozenset({"README.md", "card.json"})


def merge(encoder: Encoder, name: str) -> Handle:
    """Add an attachment's change to the encoder's weights in memory.

    The attachment then acts on every row, whatever is selected, at no cost. Merging it again does
    nothing. `unmerge` and `remove` put the original weights back, which are kept meanwhile.

    Args:
        encoder: The encoder.
        name: The attachment's name.

    Returns:
        The attachment.

    Raises:
        CatalogError: The encoder has no such attachment.
        ConfigError: Its method cannot be merged.
        SiteError: A frozen module has nothing that the change could be added to.
        CheckpointError: The change is not finite.
    """
    handle = attachment(encoder, name)
    if handle.merged:
        return handle
    changes = _changes(handle)
    for one in attachments(encoder).values():  # later the weights are no longer what it trained on
        one.base = one.base or base_of(encoder)
    _write(encoder, changes)
    router = router_of(encoder)
    router.merged.append(name)
    router.refresh()
    return handle


def unmerge(encoder: Encoder, name: str) -> None:
    """Take a merged change out of the weights again, bit for bit; others stay merged.

    Args:
        encoder: The encoder.
        name: The attachment's name; where it is not merged nothing happens.

    Raises:
        CatalogError: The encoder has no such attachment.
    """
    if not attachment(encoder, name).merged:
        return
    router = router_of(encoder)
    with torch.no_grad():
        for path, original in router.originals.items():
            encoder.model.get_parameter(path).copy_(original)
    router.originals = {}
    others = [one for one in router.merged if one != name]
    router.merged = []
    for other in others:
        _write(encoder, _changes(attachment(encoder, other)))
        router.merged.append(other)
    router.refresh()


def merge_to_folder(
    encoder: Encoder,
    names: str | Sequence[str],
    folder: Path,
    base: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the base with attachments folded in as an ordinary transformers folder.

    Everything else of the base's folder (a decoder, a head, tokenizer and extractor files) goes
    along. The encoder in memory is as it was afterwards.

    Args:
        encoder: The encoder.
        names: What to fold in, one after the other.
        folder: Where to write; it must not exist or be empty.
        base: The folder or hub id of the base; what the encoder was loaded from where None.
        dtype: Precision to write; that of the encoder in memory where None.

    Returns:
        `folder`.

    Raises:
        CatalogError: The encoder has no such attachment, or the base is not found.
        ConfigError: A method cannot be merged, or something else is merged already.
        CheckpointError: The folder is not empty, or the base holds another encoder.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    directory = _base_folder(encoder, base)
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"'{folder}' was to hold the merged model, but is not empty.")
    merged = list(router_of(encoder).merged) if encoder.attached else []
    if any(name not in chosen for name in merged):
        raise ConfigError(
            f"adapters {chosen} were to be written merged, but {merged} are merged in memory. "
            "Remove those first."
        )
    weights = _merged_weights(encoder, chosen)
    first = next(encoder.model.parameters())
    model = _whole_model(directory, dtype or first.dtype)
    part = next((one for one in model.modules() if type(one) is type(encoder.model)), None)
    if part is None:
        raise CheckpointError(
            f"'{directory}' was taken for the base of a {type(encoder.model).__name__}, but holds "
            f"a {type(model).__name__} without one. Name the right base."
        )
    with torch.no_grad():
        for path, tensor in weights.items():
            part.get_parameter(path).copy_(tensor)
    _save(model, directory, folder)
    return folder


def _merged_weights(encoder: Encoder, names: Sequence[str]) -> dict[str, Tensor]:
    fresh = [name for name in names if not attachment(encoder, name).merged]
    try:
        for name in fresh:
            merge(encoder, name)
        changed = router_of(encoder).originals
        return {path: encoder.model.get_parameter(path).clone() for path in changed}
    finally:
        for name in reversed(fresh):
            unmerge(encoder, name)


def _changes(handle: Handle) -> dict[str, Tensor]:
    """Return what is to be added, by the path of the frozen tensor, all of it checked."""
    method = handle.method
    if method.weight_delta is None:
        raise ConfigError(
            f"adapter '{handle.name}' was to be merged, but {handle.method_name} changes more than "
            "weights can hold. Keep it attached, which costs little."
        )
    by_role = handle.module.by_role()
    changes: dict[str, Tensor] = {}
    with (
        torch.no_grad(),
        torch.autocast(next(handle.encoder.model.parameters()).device.type, None, False),
    ):
        for site in (*handle.sites, *handle.norm_sites):
            adapter = by_role[site.role]
            module = handle.encoder.model.get_submodule(site.write)
            delta = _delta(method.weight_delta, adapter, module)
            for kind, change in (("weight", delta.weight), ("bias", delta.bias)):
                if change is not None:
                    _check(site, kind, getattr(module, kind, None), change)
                    path = f"{site.write}.{kind}"
                    changes[path] = changes[path] + change if path in changes else change
    return changes


def _delta(weight_delta: Any, adapter: Adapter, module: nn.Module) -> WeightDelta:
    if isinstance(adapter, NormAdapter):
        return norm_delta(adapter, module)
    found: WeightDelta = weight_delta(adapter, module)
    return found


def _check(site: Site, kind: str, frozen: Tensor | None, change: Tensor) -> None:
    if frozen is None or frozen.shape != change.shape or site.branch_scale != 1.0:
        found = "has none" if frozen is None else f"has one of {list(frozen.shape)}"
        raise SiteError(
            f"a change of {list(change.shape)} was to be added to the {kind} of '{site.write}' "
            f"({site.role}), which {found}. Keep the adapter attached."
        )
    if not bool(change.isfinite().all()):
        raise CheckpointError(
            f"the change of the {kind} of '{site.write}' ({site.role}) holds NaN or infinity. "
            "Take an earlier checkpoint of the adapter."
        )


def _write(encoder: Encoder, changes: dict[str, Tensor]) -> None:
    originals = router_of(encoder).originals
    with torch.no_grad():
        for path, change in changes.items():
            frozen = encoder.model.get_parameter(path)
            originals.setdefault(path, frozen.detach().clone())
            frozen.copy_(frozen.float() + change.float())


def _base_folder(encoder: Encoder, base: str | Path | None) -> Path:
    if base is not None:
        return locate(base)[0]
    if encoder.source is None:
        raise ConfigError(
            "a merged folder was asked for, but the encoder was built in memory. Name the base's "
            "folder or hub id."
        )
    revision = None if encoder.source.revision == "local" else encoder.source.revision
    return locate(encoder.source.name, revision=revision)[0]


def _whole_model(directory: Path, dtype: torch.dtype) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    names = config.architectures or []
    kind = getattr(transformers, names[0], None) if names else None
    with quiet_progress():
        return (kind or transformers.AutoModel).from_pretrained(
            directory, dtype=dtype, use_safetensors=True, local_files_only=True
        )


def _save(model: Any, directory: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_progress():
        model.save_pretrained(folder)
    for file in directory.iterdir():
        left = file.name in _OF_THE_BASE or file.name.endswith(_WEIGHTS)
        if file.is_file() and not left and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)

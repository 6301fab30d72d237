"""Finding and loading encoders. The folder is the catalogue.

A module of this package is an encoder family when it sets `MODEL_TYPE` (the `model_type` of a
transformers `config.json`) and offers

    load(directory, padding, dtype) -> Encoder     read a model folder
    sites(config) -> dict[str, Site]               the table of sites
    legacy_names() -> dict[str, str]               transformers 4.57 module paths -> roles
    tiny() -> (model, extractor)                   a small random model, for tests

Listing the families reads source text only; no torch is imported before a model is loaded.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError, near_misses

if TYPE_CHECKING:
    from speechadapt.encoders.base import Encoder

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_FETCHED = ("*.json", "*.txt", "*.safetensors")
_DTYPES = ("float32", "float16", "bfloat16")


@cache
def families() -> Mapping[str, str]:
    """Return every encoder family's name and the `model_type` it loads, by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [name.id for name in node.targets if isinstance(name, ast.Name)]
                if "MODEL_TYPE" in names:
                    found[path.stem] = str(node.value.value)
    return MappingProxyType(found)


def family_module(family: str) -> Any:
    """Import the module of one family.

    Args:
        family: A name of `families()`.

    Raises:
        CatalogError: There is no such family; near misses are named.
    """
    if family not in families():
        raise CatalogError(
            f"no encoder family is called '{family}'.{near_misses(family, families())}"
        )
    return importlib.import_module(f"speechadapt.encoders.{family}")


def family_of(directory: Path) -> str:
    """Tell which family a model folder belongs to, by its `config.json`.

    Args:
        directory: A transformers model folder.

    Raises:
        CheckpointError: There is no readable `config.json` with a `model_type`.
        CatalogError: No family loads that `model_type`; those on offer are named.
    """
    path = directory / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{directory}' was to be read as a transformers model, but its config.json is missing "
            f"or names no model_type ({type(error).__name__}: {error})."
        ) from error
    for family, offered in families().items():
        if offered == model_type:
            return family
    raise CatalogError(
        f"'{directory}' holds a model of type '{model_type}', which no encoder family loads."
        f"{near_misses(str(model_type), families().values())}"
    )


def load_encoder(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    padding: str = "full",
    dtype: str = "float32",
    device: str = "cpu",
) -> Encoder:
    """Load a frozen encoder from a local folder or a model hub.

    A folder that exists wins over a hub id of the same name. Weights are read from safetensors
    only. What was loaded stands in the encoder's `source`.

    Args:
        name: A transformers model folder, or a hub id such as `openai/whisper-small`.
        revision: Hub branch, tag or commit; the commit it stood for is reported. Not for folders.
        offline: Use only what is on this machine.
        padding: `full` or `native`, for families with a window (see `WhisperEncoder`).
        dtype: Precision of the weights in memory: `float32`, `float16` or `bfloat16`.
        device: A torch device.

    Returns:
        The encoder, frozen and in evaluation mode.

    Raises:
        CatalogError: No such folder or hub model, or a model type no family loads.
        CheckpointError: The model is incomplete, unreadable or not in safetensors.
        ConfigError: `padding` or `dtype` is unknown, or a revision was asked of a folder.
    """
    import torch

    from speechadapt.encoders.base import check_padding
    from speechadapt.encoders.source import Source, fingerprint_folder

    check_padding(padding)
    if dtype not in _DTYPES:
        raise ConfigError(f"encoder.dtype '{dtype}' was asked for.{near_misses(dtype, _DTYPES)}")
    directory, commit = locate(name, revision=revision, offline=offline)
    module = family_module(family_of(directory))
    encoder: Encoder = module.load(directory, padding, getattr(torch, dtype))
    encoder.source = Source(str(name), commit, fingerprint_folder(directory))
    return encoder.to(torch.device(device)).freeze()


def locate(
    name: str | Path, *, revision: str | None = None, offline: bool = False
) -> tuple[Path, str]:
    """Find a model's folder, fetching it from the hub if need be.

    Args:
        name: A folder or a hub id.
        revision: Hub branch, tag or commit.
        offline: Use only what is on this machine.

    Returns:
        The folder and its revision: the hub commit, or `local`.

    Raises:
        CatalogError: There is no such folder or hub model.
        ConfigError: A revision was asked of a folder.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        if revision is not None:
            raise ConfigError(
                f"revision '{revision}' was asked of the local folder '{name}', which has none. "
                "Drop the revision, or give a hub id."
            )
        return directory, "local"
    if not _HUB_ID.fullmatch(str(name)):
        raise CatalogError(f"there is no model folder '{name}'.{_siblings(directory)}")
    return _fetch(str(name), revision, offline)


def _fetch(name: str, revision: str | None, offline: bool) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(_FETCHED)
        )
    except (OSError, ValueError) as error:
        where = "in the local hub cache (offline)" if offline else "on the model hub"
        asked = f"'{name}'" + (f" at revision '{revision}'" if revision else "")
        reason = str(error).strip().split("\n")[0]
        raise CatalogError(
            f"{asked} is neither a folder nor a model found {where}: {reason}"
            f"{_siblings(Path(name))}"
        ) from error
    return Path(folder), Path(folder).name


def _siblings(missing: Path) -> str:
    parent = missing.parent
    if not parent.is_dir():
        return f" The folder '{parent}' does not exist either."
    known = [path.name for path in parent.iterdir() if (path / "config.json").is_file()]
    return near_misses(missing.name, known)

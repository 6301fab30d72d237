"""Where an encoder's weights come from: reading model folders, and telling weights apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import hash_file, hash_json

_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class Source:
    """What an encoder was loaded from.

    Args:
        name: The hub id or the folder as it was asked for.
        revision: The hub commit, or `local` for a folder.
        fingerprint: SHA-256 over the weight files, so equal weights are known whatever their name.
    """

    name: str
    revision: str
    fingerprint: str


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal, which belongs to the job at hand."""
    shown = bool(logging.is_progress_bar_enabled())
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fingerprint_folder(directory: Path) -> str:
    """Return the SHA-256 of a folder's safetensors files.

    Names of shards count, so a single file and its shards differ.

    Args:
        directory: A transformers model folder.

    Raises:
        CheckpointError: The folder holds no safetensors weights.
    """
    files = weight_files(directory)
    if len(files) == 1:
        return hash_file(files[0])
    return hash_json({file.name: hash_file(file) for file in files})


def fingerprint_module(module: nn.Module) -> str:
    """Return a SHA-256 over a module's state: names, types, shapes and bytes of every tensor.

    Args:
        module: Any module; equal states give equal fingerprints on every device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_weights(module: nn.Module) -> str:
    """Return a SHA-256 over what a module's weights are, whatever they are called.

    Names do not count, since they change between releases of transformers. Nor does the precision
    in memory: weights read from a file in half precision have the same fingerprint as float16 and
    as float32, which holds the same numbers.

    Args:
        module: Any module; every parameter and stored buffer counts, by shape and values.
    """
    digests = []
    for tensor in module.state_dict().values():
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values.long()
        digest = hashlib.sha256(f"{tuple(values.shape)}|".encode())
        digest.update(values.contiguous().view(-1).view(torch.uint8).numpy())
        digests.append(digest.hexdigest())
    return hash_json(sorted(digests))


def weight_files(directory: Path) -> list[Path]:
    """Return a folder's safetensors files, sorted by name.

    Raises:
        CheckpointError: There is none; pickled weights beside it are named, as they are not read.
    """
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(file.name for file in directory.glob("*.bin"))
    found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
    raise CheckpointError(
        f"safetensors weights were looked for in '{directory}', which holds {found}. "
        "Save the model with save_pretrained(...), which writes safetensors."
    )


def load_weights(model_class: Any, directory: Path, dtype: torch.dtype, config: Any = None) -> Any:
    """Load a transformers model from a local folder, safetensors only, with nothing left random.

    Args:
        model_class: A transformers model class.
        directory: Holds `config.json` and safetensors weights.
        dtype: Precision of the weights in memory.
        config: A transformers configuration in place of the folder's; tensors it has no use for
            are not read.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: Weights are missing, of another shape or unreadable.
    """
    weight_files(directory)
    shown = logging.get_verbosity()
    if config is not None:  # what the configuration leaves out is left unread on purpose
        logging.set_verbosity_error()
    try:
        with quiet_progress():
            model, info = model_class.from_pretrained(
                directory,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **({} if config is None else {"config": config}),
            )
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"'{directory}' was to be loaded as {model_class.__name__}, but: {error}"
        ) from error
    finally:
        logging.set_verbosity(shown)
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"'{directory}' was to be loaded as {model_class.__name__}, but {len(missing)} of its "
            f"tensors are missing, the first being '{missing[0]}'."
        )
    return model.eval()


def load_extractor(extractor_class: type[_Loaded], directory: Path) -> _Loaded:
    """Load a model's feature extractor from its `preprocessor_config.json`.

    Args:
        extractor_class: A transformers feature-extractor class.
        directory: The model folder.

    Raises:
        CheckpointError: The file is missing or unreadable.
    """
    if not (directory / "preprocessor_config.json").is_file():
        raise CheckpointError(
            f"'{directory}' holds no preprocessor_config.json, which says how the model's features "
            "are computed. Save the model's feature extractor into the same folder."
        )
    try:
        loader: Any = extractor_class
        extractor: _Loaded = loader.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"preprocessor_config.json of '{directory}' cannot be used: {error}"
        ) from error
    return extractor

"""A masked-diffusion model's folder: `config.json`, `model.safetensors`, `tokenizer.json`.

The folder does not hold the encoder that it hears with; `config.json` names it, says how it was
padded, and carries the fingerprint of its weight files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import read_shape
from speechadapt.decoders.masked_diffusion.vocabulary import (
    TOKENIZER_FILE,
    Vocabulary,
    read_vocabulary,
)
from speechadapt.decoders.weights import read_tensors

ARCHITECTURE = "MaskedDiffusionDecoder"
MODEL_TYPE = "masked_diffusion"


@dataclass(frozen=True)
class Heard:
    """The encoder a model was trained on.

    Args:
        name: A bundled model, a folder or a hub id.
        fingerprint: SHA-256 over its weight files.
        padding: How it was padded: `full` or `native`.
        margin_s: Hiss on either side of a clip, in seconds.
    """

    name: str
    fingerprint: str
    padding: str = "full"
    margin_s: float = 0.0


def save_folder(
    folder: Path,
    network: DiffusionNetwork,
    vocabulary: Vocabulary,
    heard: Heard | None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model.

    Args:
        folder: Is made; files of an earlier save are replaced.
        network: Its weights.
        vocabulary: Its tokens.
        heard: The encoder; None for a model of text alone.
        dtype: Precision of the stored weights.

    Raises:
        CheckpointError: The vocabulary is not the network's.
    """
    if vocabulary.size != network.shape.vocab_size:
        raise CheckpointError(
            f"a network that writes {network.shape.vocab_size} tokens was to be saved with a "
            f"vocabulary of {vocabulary.size}."
        )
    tensors: dict[str, Tensor] = {
        name: tensor.detach().to("cpu", dtype).contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model.safetensors", lambda path: save_file(tensors, path))
    atomic_write(folder / TOKENIZER_FILE, lambda path: vocabulary.tokenizer.save(str(path)))
    atomic_write_json(
        folder / "config.json",
        {
            "architectures": [ARCHITECTURE],
            "model_type": MODEL_TYPE,
            "bos_token_id": vocabulary.start_id,
            "pad_token_id": vocabulary.pad_id,
            **network.shape.to_json(),
            "encoder": None if heard is None else vars(heard),
        },
    )


def read_folder(folder: Path) -> tuple[DiffusionNetwork, Vocabulary]:
    """Read a model, in float32 on the CPU, in evaluation mode.

    Args:
        folder: As `save_folder` writes it.

    Raises:
        CheckpointError: A file is missing, damaged or cut short, tensors are missing, in excess or
            of another shape, or the tokenizer is another model's.
    """
    config = read_config(folder)
    shape = read_shape(config, folder.name)
    vocabulary = read_vocabulary(folder, config)
    network = DiffusionNetwork(shape)
    load_strictly(network, read_tensors(folder, ""), folder.name)
    return network.eval(), vocabulary


def load_strictly(network: DiffusionNetwork, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put tensors into a network that has exactly these.

    Args:
        network: Is filled.
        tensors: By their names in the network; brought to float32.
        name: Where they are from, for messages.

    Raises:
        CheckpointError: Tensors are missing, in excess, of another shape, or hold NaN.
    """
    own = {key: tuple(one.shape) for key, one in network.state_dict().items()}
    found = {key: tuple(one.shape) for key, one in tensors.items()}
    missing, excess = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or excess:
        raise CheckpointError(
            f"the weights of '{name}' do not fit its config.json: {len(missing)} tensors are "
            f"missing ({missing[:3]}), {len(excess)} are in excess ({excess[:3]})."
        )
    for key, size in own.items():
        if found[key] != size:
            raise CheckpointError(
                f"'{key}' of '{name}' is {found[key]}, by its config.json it is {size}."
            )
        if not bool(torch.isfinite(tensors[key]).all()):
            raise CheckpointError(f"'{key}' of '{name}' holds NaN or infinity.")
    network.load_state_dict({key: one.float() for key, one in tensors.items()})


def read_config(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of a masked-diffusion folder.

    Raises:
        CheckpointError: It is missing or no JSON, or the folder holds another kind of model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no model folder: config.json: {error}.") from error
    if not is_diffusion(config):
        raise CheckpointError(f"{folder} holds no {ARCHITECTURE}.")
    return dict(config)


def is_diffusion(config: Any) -> bool:
    """Tell from a `config.json` whether the folder holds a masked-diffusion decoder."""
    return isinstance(config, dict) and ARCHITECTURE in (config.get("architectures") or ())


def read_heard(config: Mapping[str, Any], owner: str) -> Heard | None:
    """Return the encoder a model was trained on; None for a model of text alone.

    Args:
        config: Its `config.json`.
        owner: Whose it is, for messages.

    Raises:
        CheckpointError: What it says cannot be used.
    """
    said = config.get("encoder")
    if said is None:
        return None
    try:
        return Heard(
            str(said["name"]),
            str(said["fingerprint"]),
            str(said["padding"]),
            float(said["margin_s"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json of '{owner}' does not say which encoder it hears with "
            f"({type(error).__name__}: {error})."
        ) from error

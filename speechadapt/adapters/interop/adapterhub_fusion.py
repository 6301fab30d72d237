"""AdapterHub's setups of fused adapters, read into their parts.

A setup holds `adapter_setup.json`, one folder per adapter and one with the weights of the fusion.
The adapters are read like any other; the fusion's weights come back by role, for a composition:

    y' = y + sum_k softmax_k(query(u) . key(z_k)) value(z_k)     z_k: what adapter k adds, u: y + h

Source: https://github.com/adapter-hub/adapters, release 1.3.0; https://arxiv.org/abs/2005.00247
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from speechadapt.adapters.interop import adapterhub
from speechadapt.adapters.interop.files import read_settings, read_weights
from speechadapt.adapters.interop.foreign import Foreign, refuse_left_out
from speechadapt.adapters.interop.keys import Names
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder

SETUP_FILE = "adapter_setup.json"
CONFIG_FILE = "adapter_fusion_config.json"
WEIGHTS_FILE = "model_adapter_fusion.safetensors"
PICKLE_FILE = "pytorch_model_adapter_fusion.bin"

_KEY = re.compile(
    r"(?P<path>.+)\.(?P<place>\w+_adapters)\.adapter_fusion_layer\.(?P<names>.+)\."
    r"(?P<part>(query|key|value|dense)\.(weight|bias))"
)


@dataclass(frozen=True)
class FusionParts:
    """The parts of a fusion.

    Args:
        names: The fused adapters, in the order the softmax runs over.
        adapters: Each of them, translated.
        config: The fusion's own settings, as the file has them.
        tensors: Weights of query, key and value by `<role>:<parameter>`.
        left_out: Names in the files that lie outside the encoder and were not read.
    """

    names: tuple[str, ...]
    adapters: Mapping[str, Foreign]
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...] = ()


def read(
    folder: Path, encoder: Encoder, allow_pickle: bool = False, encoder_only: bool = False
) -> FusionParts:
    """Read a folder of fused adapters.

    Args:
        folder: The setup that the library wrote, or the fusion's own folder inside it.
        encoder: The encoder it was trained on, alone or inside a task model.
        allow_pickle: Whether pickles may be read.
        encoder_only: Whether to leave out what lies in a decoder beside the encoder.

    Raises:
        CheckpointError: A part is missing or damaged, or the setup is no plain fusion.
        SiteError: It adapts a module of the encoder where no adapter can stand.
    """
    inner = _fusion_folder(folder)
    details = read_settings(inner / CONFIG_FILE)
    adapterhub.check_model_type(details, encoder, inner)
    names = tuple(str(name) for name in details.get("adapter_names") or ())
    weights = read_weights(inner, WEIGHTS_FILE, PICKLE_FILE, allow_pickle)
    matches = {key: _KEY.fullmatch(key) for key in weights}
    found = {key: match for key, match in matches.items() if match is not None}
    strange = [key for key in weights if key not in found]
    if strange or not names:
        raise CheckpointError(
            f"'{inner}' was to be read as a fusion of adapters, but names {len(names)} of them and "
            f"holds {len(strange)} tensors of something else. Save the setup again."
        )
    located = Names(encoder).locate([match["path"] for match in found.values()], str(inner))
    left_out = [key for key, match in found.items() if match["path"] in located.outside]
    refuse_left_out(left_out, inner, encoder_only)
    tensors = {
        f"{_role(located.roles[match['path']], match['place'])}:{match['part']}": weights[key]
        for key, match in found.items()
        if match["path"] in located.roles
    }
    adapters = {
        name: adapterhub.read(inner.parent / name, encoder, allow_pickle, encoder_only)
        for name in names
    }
    return FusionParts(names, adapters, details.get("config") or {}, tensors, tuple(left_out))


def _fusion_folder(folder: Path) -> Path:
    if (folder / CONFIG_FILE).is_file():
        return folder
    setup = read_settings(folder / SETUP_FILE).get("adapter_setup") or {}
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))
    if setup.get("type") != "Fuse" or len(inside) != 1:
        raise CheckpointError(
            f"'{folder}' was to be read as a fusion of adapters, but is a setup of type "
            f"{setup.get('type')!r} with {len(inside)} fusions. Give a setup of one plain fusion, "
            "or import its adapters one by one."
        )
    return inside[0]


def _role(layer: str, place: str) -> str:
    return f"{layer.removesuffix('.end')}.{adapterhub.SITES[place]}"

"""PEFT's LoRA folders: read into an attachment here, and written from one.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, with `lora_A` `[rank, in]` and
`lora_B` `[out, rank]` for each module (a convolution has its taps behind), `lora_B.bias` where
asked for, and `modules_to_save` whole. The `peft` library is not needed.

Source: https://github.com/huggingface/peft, release 0.21 (layout of the files, scale of a product).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.interop.files import read_settings, read_weights
from speechadapt.adapters.interop.foreign import Foreign, refuse_left_out
from speechadapt.adapters.interop.keys import Names
from speechadapt.adapters.interop.whole import split_whole
from speechadapt.adapters.lowrank import weight_of
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
WRAPPING = "base_model.model."

_LORA_KEY = re.compile(r"(?P<path>.+)\.lora_(?P<part>[AB])(\.[^.]+)?\.(?P<kind>weight|bias)")
_INERT_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
_REFUSED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)


@dataclass(frozen=True)
class _Product:
    """One module's entry: factors, bias and the number that multiplies them."""

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float


def read(
    folder: Path, encoder: Encoder, allow_pickle: bool = False, encoder_only: bool = False
) -> Foreign:
    """Translate a PEFT LoRA folder.

    Rank and alpha may differ from module to module (`rank_pattern`, `alpha_pattern`): every product
    is then stored with the largest rank, filled up with columns that add nothing, and with its
    scale worked into `up`. A folder whose factors started as principal components (PiSSA), saved
    without conversion, becomes an adapter of that method.

    Args:
        folder: The folder that PEFT wrote.
        encoder: The encoder it was trained on, alone or inside a task model.
        allow_pickle: Whether an old folder's pickle may be read.
        encoder_only: Whether to leave out what lies in a decoder beside the encoder.

    Raises:
        CheckpointError: The folder is damaged, of another kind (DoRA and others), not made for this
            encoder, or adapts more than the encoder.
        SiteError: It adapts a module of the encoder where no adapter can stand.
    """
    settings = read_settings(folder / CONFIG_FILE)
    _check_kind(settings, folder)
    weights = read_weights(folder, WEIGHTS_FILE, PICKLE_FILE, allow_pickle)
    entries, others = _sort(weights, folder)
    located = Names(encoder).locate([*entries, *_modules(others)], str(folder))
    own = [path for path in entries if path in located.roles]
    _check_convolutions(encoder, [located.roles[path] for path in own], folder)
    products = {
        located.roles[path]: _product(path, entries[path], settings, folder) for path in own
    }
    left_out = [path for path in entries if path in located.outside]
    refuse_left_out(left_out, folder, encoder_only)
    if not products:
        raise CheckpointError(
            f"'{folder}' was to hold a LoRA, but adapts no module of the encoder."
        )
    whole, head = split_whole(encoder, others, located.roles, folder)
    started = settings.get("init_lora_weights") == "pissa"
    method, config, tensors = (
        _as_pissa(encoder, products, folder) if started else _as_lora(products, settings)
    )
    return Foreign(
        source="peft",
        folder=folder,
        method=method,
        config=config,
        roles=tuple(products),
        tensors={**tensors, **whole},
        train_norms="all" if whole else "none",
        head=head,
        left_out=tuple(left_out),
        notes={"peft_version": settings.get("peft_version")},
    )


def _check_kind(settings: Mapping[str, Any], folder: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"'{folder}' was to be read as a PEFT LoRA, but its peft_type is {kind!r}. Only LORA "
            "can be imported."
        )
    on = [name for name in _REFUSED if settings.get(name)]
    if on:
        raise CheckpointError(
            f"'{folder}' was saved with {on[0]}, which computes more than a low-rank product and "
            "cannot be imported. Merge it with peft and use the merged model as the base."
        )
    if settings.get("bias", "none") != "none":
        raise CheckpointError(
            f"'{folder}' was saved with bias={settings['bias']!r}: it changes biases of the base, "
            "which cannot be imported. Train with bias='none', or with lora_bias=True."
        )
    start = settings.get("init_lora_weights")
    if start not in (*_INERT_INITS, "pissa"):
        raise CheckpointError(
            f"'{folder}' was saved with init_lora_weights={start!r}, which changed its base in a "
            "way that the folder does not hold. Save it once more with "
            "path_initial_model_for_weight_conversion."
        )


def _sort(
    weights: Mapping[str, Tensor], folder: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the factors by module path, and the tensors of modules saved whole by name."""
    entries: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = _LORA_KEY.fullmatch(name)
        if match is not None:
            part = match["part"] + ("" if match["kind"] == "weight" else "_bias")
            entries.setdefault(match["path"], {})[part] = value
        elif ".lora_" in name:
            raise CheckpointError(
                f"'{folder}' holds '{name}', which is no part of a plain LoRA on linear maps and "
                "convolutions. Merge it with peft and use the merged model as the base."
            )
        else:
            others[name.replace(".modules_to_save.default", "")] = value
    return entries, others


def _modules(tensors: Mapping[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def _product(
    path: str, parts: Mapping[str, Tensor], settings: Mapping[str, Any], folder: Path
) -> _Product:
    if not {"A", "B"} <= set(parts) <= {"A", "B", "B_bias"}:
        raise CheckpointError(
            f"'{folder}' holds {sorted(parts)} for '{path}', where lora_A and lora_B were expected."
        )
    down, up = parts["A"].float(), parts["B"].float()
    rank = down.shape[0]
    if up.dim() < 2 or up.shape[1] != rank:
        raise CheckpointError(
            f"'{folder}' holds a lora_A of rank {rank} for '{path}', but its lora_B is "
            f"{list(up.shape)}. The two do not belong together."
        )
    alpha = _by_pattern(path, settings.get("alpha_pattern") or {}, settings.get("lora_alpha", 8))
    root = bool(settings.get("use_rslora", False))
    bias = parts.get("B_bias")
    scale = alpha / (math.sqrt(rank) if root else rank)
    return _Product(down, up, None if bias is None else bias.float(), scale)


def _check_convolutions(encoder: Encoder, roles: Iterable[str], folder: Path) -> None:
    for role in roles:
        conv = encoder.site(role).conv
        if conv is not None and conv.groups > 1:
            raise CheckpointError(
                f"'{folder}' adapts '{role}', a convolution in {conv.groups} groups, whose product "
                "PEFT builds in another way. Leave it out of target_modules."
            )


def _by_pattern(path: str, patterns: Mapping[str, Any], default: Any) -> float:
    """Return the first pattern's value whose expression matches the end of `path`."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path.removeprefix(WRAPPING)):
            return float(value)
    return float(default)


def _as_lora(
    products: Mapping[str, _Product], settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    rank = max(one.down.shape[0] for one in products.values())
    scales = [one.scale for one in products.values()]
    scale = max(set(scales), key=scales.count)
    bias = any(one.bias is not None for one in products.values())
    config = {
        "rank": rank,
        "alpha": scale * rank,
        "bias": bias,
        "depthwise_rank": rank,
        "dropout": float(settings.get("lora_dropout", 0.0)),
    }
    tensors: dict[str, Tensor] = {}
    for role, one in products.items():
        part = one.scale / scale
        tensors[f"{role}:change.down"] = _more_rows(one.down, rank)
        tensors[f"{role}:change.up"] = _more_columns(one.up * part, rank)
        if bias:
            bare = torch.zeros(one.up.shape[0]) if one.bias is None else one.bias
            tensors[f"{role}:change.bias"] = bare * part
    return "lora", config, tensors


def _more_rows(down: Tensor, rank: int) -> Tensor:
    """Fill up with copies of rows, so that later training can use them too."""
    return down[torch.arange(rank) % down.shape[0]]


def _more_columns(up: Tensor, rank: int) -> Tensor:
    filled = up.new_zeros(up.shape[0], rank, *up.shape[2:])
    filled[:, : up.shape[1]] = up
    return filled


def _as_pissa(
    encoder: Encoder, products: Mapping[str, _Product], folder: Path
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    ranks = {one.down.shape[0] for one in products.values()}
    scales = {one.scale for one in products.values()}
    if len(ranks) > 1 or len(scales) > 1 or any(one.bias is not None for one in products.values()):
        raise CheckpointError(
            f"'{folder}' was saved with init_lora_weights='pissa' and several ranks, scales or "
            "biases. Save it once more with path_initial_model_for_weight_conversion."
        )
    rank, scale = ranks.pop(), scales.pop()
    tensors: dict[str, Tensor] = {}
    for role, one in products.items():
        module = encoder.model.get_submodule(encoder.site(role).write)
        left, values, right = torch.linalg.svd(
            weight_of(module).detach().flatten(1).float(), full_matrices=False
        )
        root = (values[:rank] / scale).sqrt()
        start_up = (left[:, :rank] * root).reshape(one.up.shape)
        start_down = (root[:, None] * right[:rank]).reshape(one.down.shape)
        tensors |= {
            f"{role}:start_up": start_up,
            f"{role}:start_down": start_down,
            f"{role}:up": one.up - start_up,
            f"{role}:down": one.down - start_down,
        }
    return "pissa", {"rank": rank, "scale": scale}, tensors

"""AdapterHub's folders: LoRA and bottlenecks, read into an attachment here.

A folder holds `adapter_config.json` and `adapter.safetensors` or, by default, a pickle. A
bottleneck stands after attention (`attention_adapters`) or after the feed-forward
(`output_adapters`); what it reads and what it is added to follow from four switches of its config:

    original_ln_before   reads y + h (output of the sub-layer and the stream it joins), else y
    residual_before_ln   is added to y, else to what it reads
    original_ln_after    h is added at the end
    is_parallel          reads h and is added to y, scaled

The `adapters` library is not needed. Bottlenecks are read for Whisper, the speech model whose
layers that library knows; LoRA for every encoder.

Source: https://github.com/adapter-hub/adapters, release 1.3.0 (layout of the files, formulas).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.interop.files import read_settings, read_weights
from speechadapt.adapters.interop.foreign import Foreign, refuse_left_out
from speechadapt.adapters.interop.keys import Names
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import families

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"
PICKLE_FILE = "pytorch_adapter.bin"
ACTIVATIONS = {
    "relu": "relu",
    "leakyrelu": "leaky_relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
    "linear": "none",
}
SITES = {"attention_adapters": "attn", "output_adapters": "ffn"}

_LORA_KEY = re.compile(r"(?P<path>.+)\.loras\.(?P<name>.+)\.lora_(?P<part>[AB])")
_BOTTLENECK_KEY = re.compile(
    r"(?P<path>.+)\.(?P<place>\w+_adapters)\.adapters\.(?P<name>.+?)\."
    r"(?P<part>(adapter_\w+|gate|scaling)(\.\d+)?)(\.(?P<kind>weight|bias))?"
)
_REFUSED_LORA = ("use_gating", "use_dora", "vera_d", "vera_b")
_REFUSED_BOTTLENECK = ("phm_layer", "use_gating", "ln_after", "inv_adapter")
_ONE_EACH = {"down.weight", "down.bias", "up.weight", "up.bias"}


@dataclass(frozen=True)
class _Bottleneck:
    """What a config says about a bottleneck, in terms of this package."""

    method: str
    config: dict[str, Any]


def read(
    folder: Path, encoder: Encoder, allow_pickle: bool = False, encoder_only: bool = False
) -> Foreign:
    """Translate an AdapterHub folder of one adapter.

    Args:
        folder: The folder that the library wrote.
        encoder: The encoder it was trained on, alone or inside a task model.
        allow_pickle: Whether a pickle may be read.
        encoder_only: Whether to leave out what lies in a decoder beside the encoder.

    Raises:
        CheckpointError: The folder is damaged, of a kind that cannot be read, not made for this
            encoder, or adapts more than the encoder.
        SiteError: It adapts a module of the encoder where no adapter can stand.
    """
    details = read_settings(folder / CONFIG_FILE)
    config = details.get("config")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"'{folder}' was to be read as an AdapterHub folder, but its {CONFIG_FILE} holds no "
            "'config'. It was written by another tool."
        )
    check_model_type(details, encoder, folder)
    weights = read_weights(folder, WEIGHTS_FILE, PICKLE_FILE, allow_pickle)
    reader = _read_lora if config.get("architecture") == "lora" else _read_bottleneck
    return reader(folder, encoder, config, weights, encoder_only)


def check_model_type(details: Mapping[str, Any], encoder: Encoder, folder: Path) -> None:
    """Refuse a folder that was made for another kind of model.

    Args:
        details: What its config file says.
        encoder: The encoder it is to be attached to.
        folder: The folder, for the message.

    Raises:
        CheckpointError: The two differ.
    """
    own = families()[encoder.family]
    if details.get("model_type") != own:
        raise CheckpointError(
            f"'{folder}' was made for a model of type {details.get('model_type')!r}, this encoder "
            f"is of type {own!r}. Give the base it was trained on."
        )


def _read_lora(
    folder: Path,
    encoder: Encoder,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    encoder_only: bool,
) -> Foreign:
    _refuse(config, _REFUSED_LORA, folder)
    if config.get("composition_mode", "add") != "add":
        raise CheckpointError(
            f"'{folder}' multiplies outputs (composition_mode={config['composition_mode']!r}), "
            "which is no LoRA. Only 'add' can be imported."
        )
    entries = _grouped(weights, _LORA_KEY, folder)
    located = Names(encoder).locate([path for path, _ in entries], str(folder))
    left_out = [path for path, _ in entries if path in located.outside]
    refuse_left_out(left_out, folder, encoder_only)
    tensors: dict[str, Tensor] = {}
    for (path, _), parts in entries.items():
        if path in located.roles:
            role = located.roles[path]
            tensors[f"{role}:change.down"] = parts["A"].float()
            tensors[f"{role}:change.up"] = parts["B"].float()
    return Foreign(
        source="adapterhub",
        folder=folder,
        method="lora",
        config={
            "rank": int(config["r"]),
            "alpha": float(config["alpha"]),
            "dropout": float(config.get("dropout", 0.0)),
        },
        roles=tuple(dict.fromkeys(key.partition(":")[0] for key in tensors)),
        tensors=tensors,
        left_out=tuple(left_out),
    )


def _read_bottleneck(
    folder: Path,
    encoder: Encoder,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    encoder_only: bool,
) -> Foreign:
    if encoder.family != "whisper":
        raise CheckpointError(
            f"'{folder}' holds bottlenecks for {encoder.family}. They are read for whisper alone, "
            "whose layers the library knows; elsewhere a person said where they stand."
        )
    _refuse(config, _REFUSED_BOTTLENECK, folder)
    entries = _grouped(weights, _BOTTLENECK_KEY, folder)
    located = Names(encoder).locate([path for path, _ in entries], str(folder))
    left_out = [f"{path}.{place}" for path, place in entries if path in located.outside]
    refuse_left_out(left_out, folder, encoder_only)
    translated = _translate(config, folder)
    by_role = {
        f"{located.roles[path].removesuffix('.end')}.{SITES[place]}": _plain(parts, config, folder)
        for (path, place), parts in entries.items()
        if path in located.roles
    }
    widths = {parts["down.weight"].shape[0] for parts in by_role.values()}
    if len(widths) != 1:
        raise CheckpointError(
            f"'{folder}' holds bottlenecks of {len(widths)} widths ({sorted(widths)}), where one "
            "for all layers was expected. Use a single reduction_factor."
        )
    return Foreign(
        source="adapterhub",
        folder=folder,
        method=translated.method,
        config={**translated.config, "bottleneck": widths.pop()},
        roles=tuple(by_role),
        tensors={
            f"{role}:{_name(part)}": value
            for role, parts in by_role.items()
            for part, value in parts.items()
        },
        left_out=tuple(left_out),
    )


def _refuse(config: Mapping[str, Any], switches: tuple[str, ...], folder: Path) -> None:
    on = [name for name in switches if config.get(name)]
    if on:
        raise CheckpointError(
            f"'{folder}' was saved with {on[0]}={config[on[0]]!r}, which no method here computes. "
            "Train it without."
        )


def _grouped(
    weights: Mapping[str, Tensor], pattern: re.Pattern[str], folder: Path
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """Return the tensors of each adapter by their part, under its module path and place."""
    entries: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in weights.items():
        match = pattern.fullmatch(key)
        if match is None:
            raise CheckpointError(
                f"'{folder}' holds '{key}', which is no part of the adapter its config describes. "
                "Only one LoRA or one bottleneck adapter can be read."
            )
        groups = match.groupdict()
        kind = groups.get("kind")
        part = groups["part"] if kind is None else f"{groups['part']}.{kind}"
        entries.setdefault((groups["path"], groups.get("place", "")), {})[part] = value
    return entries


def _translate(config: Mapping[str, Any], folder: Path) -> _Bottleneck:
    named = str(config.get("non_linearity", "relu")).lower()
    if named not in ACTIVATIONS:
        raise CheckpointError(
            f"'{folder}' bends by {named!r}. Known are {', '.join(sorted(ACTIVATIONS))}."
        )
    shared = {"activation": ACTIVATIONS[named], "dropout": 0.0}
    own_norm = bool(config.get("ln_before", False))
    if config.get("is_parallel", False):
        scaling = config.get("scaling", 1.0)
        kind = {"learned": "learned", "channel": "channel"}.get(str(scaling), "fixed")
        reads = "own_ln" if own_norm else "residual"
        scale = 1.0 if kind != "fixed" else float(scaling)
        return _Bottleneck(
            "parallel", {**shared, "input": reads, "scale_kind": kind, "scale": scale}
        )
    reads, kept = _sequence(config, folder)
    if (reads, kept) == ("output", "output"):
        return _Bottleneck("houlsby", {**shared, "own_norm": own_norm})
    return _Bottleneck(
        "pfeiffer", {**shared, "own_norm": own_norm, "input": reads, "residual": kept}
    )


def _sequence(config: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """Return what a bottleneck in series reads and what it is added to."""
    before = bool(config.get("original_ln_before", False))
    after = bool(config.get("original_ln_after", True))
    residual = config.get("residual_before_ln", True)
    kept_stream = before and residual is False
    # what is added to, with the stream that is added at the end, must hold the stream at least once
    if residual in (True, False) and (after or kept_stream):
        reads = "stream" if before else "output"
        return reads, "stream" if after and kept_stream else "output"
    raise CheckpointError(
        f"'{folder}' was saved with original_ln_before={before}, original_ln_after={after} and "
        f"residual_before_ln={residual!r}, which drops the residual stream of a layer whose norm "
        "comes first. It cannot be imported."
    )


def _plain(
    parts: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path
) -> dict[str, Tensor]:
    """Return one adapter's tensors by plain names, a scale in series worked into `up`."""
    first = 1 if config.get("ln_before", False) else 0
    renamed = {
        f"adapter_down.{first}.weight": "down.weight",
        f"adapter_down.{first}.bias": "down.bias",
        "adapter_up.weight": "up.weight",
        "adapter_up.bias": "up.bias",
        "adapter_norm_before.weight": "norm.weight",
        "adapter_norm_before.bias": "norm.bias",
        "scaling": "scaling",
    }
    same = {"adapter_down.0.weight", "adapter_down.0.bias"} if first else set()
    unknown = set(parts) - set(renamed) - same
    plain = {new: parts[old].float() for old, new in renamed.items() if old in parts}
    norms = {"norm.weight", "norm.bias"} if first else set()
    if unknown or not (_ONE_EACH | norms) <= set(plain):
        raise CheckpointError(
            f"'{folder}' holds an adapter of the parts {sorted(parts)}, which is not what its "
            "config describes."
        )
    if config.get("is_parallel", False):
        return plain
    scaling = plain.pop("scaling", None)
    fixed = config.get("scaling", 1.0)
    scale = torch.tensor(float(fixed)) if scaling is None else scaling
    plain["up.weight"] = plain["up.weight"] * scale.reshape(-1, 1)
    plain["up.bias"] = plain["up.bias"] * scale
    return plain


def _name(part: str) -> str:
    return "scale" if part == "scaling" else f"bottleneck.{part}"

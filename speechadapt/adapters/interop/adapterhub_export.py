"""Writing an attachment as an AdapterHub folder: LoRA, and bottlenecks on a Whisper encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from speechadapt.adapters.handle import Handle
from speechadapt.adapters.interop.adapterhub import ACTIVATIONS, CONFIG_FILE, SITES, WEIGHTS_FILE
from speechadapt.adapters.lowrank import LowRankAdapter
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.encoders.catalog import families

_PLACES = {site: place for place, site in SITES.items()}
_ATTENTION = {"attn.q": "q", "attn.k": "k", "attn.v": "v"}
_ENCODER = "encoder."
_VERSION = "adapters.1.3.0"


@torch.no_grad()
def write(handle: Handle, folder: Path) -> Path:
    """Write an attachment as a folder that AdapterHub loads onto a `WhisperModel`.

    The library makes an adapter in the decoder too, wherever the encoder has one; as the file holds
    none, it leaves those as it starts them (a product that is zero, or for a bottleneck a random
    one: set `leave_out` there if the decoder is used).

    Args:
        handle: A LoRA, or a bottleneck of the methods `houlsby`, `pfeiffer` or `parallel`, on a
            Whisper encoder.
        folder: Where to write; it is made.

    Returns:
        `folder`.

    Raises:
        ConfigError: The method, its settings or its roles have no counterpart there.
    """
    if handle.encoder.family != "whisper" or handle.norm_sites:
        raise ConfigError(
            f"adapter '{handle.name}' on {handle.encoder.family} with "
            f"{len(handle.norm_sites)} trained norms was to be exported to AdapterHub, which knows "
            "adapters without norms on whisper alone."
        )
    lora = all(isinstance(one, LowRankAdapter) for one in handle.module.adapters())
    config, tensors = _lora(handle) if lora else _bottleneck(handle)
    details = {
        "config": config,
        "hidden_size": handle.encoder.dim,
        "model_class": "WhisperModel",
        "model_name": "" if handle.encoder.source is None else handle.encoder.source.name,
        "model_type": families()[handle.encoder.family],
        "name": handle.name,
        "version": _VERSION,
    }
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    atomic_write(folder / WEIGHTS_FILE, lambda path: save_file(plain, path, {"format": "pt"}))
    atomic_write_json(folder / CONFIG_FILE, details)
    return folder


def _lora(handle: Handle) -> tuple[dict[str, Any], dict[str, Tensor]]:
    kinds = {site.role.split(".", 2)[-1] for site in handle.sites}
    allowed = {*_ATTENTION, "ffn.up", "ffn.down"}
    if not kinds <= allowed:
        raise ConfigError(
            f"adapter '{handle.name}' stands at {', '.join(sorted(kinds - allowed))}, where "
            f"AdapterHub has no LoRA. It has {', '.join(sorted(allowed))}."
        )
    tensors: dict[str, Tensor] = {}
    scales: dict[int, float] = {}
    for role, adapter in handle.module.by_role().items():
        path = handle.encoder.site(role).write
        assert isinstance(adapter, LowRankAdapter)
        found = adapter.factors(handle.encoder.model.get_submodule(path))
        if found is None or found.bias is not None:
            raise ConfigError(
                f"adapter '{handle.name}' changes a bias at '{role}', which AdapterHub's LoRA "
                "cannot hold. Export it to PEFT."
            )
        scales[found.rank] = found.scale
        tensors[f"{_ENCODER}{path}.loras.{handle.name}.lora_A"] = found.down
        tensors[f"{_ENCODER}{path}.loras.{handle.name}.lora_B"] = found.up
    (rank, scale) = next(iter(scales.items()))
    config = {
        "architecture": "lora",
        "r": rank,
        "alpha": scale * rank,
        "attn_matrices": [one for kind, one in _ATTENTION.items() if kind in kinds],
        "selfattn_lora": bool(kinds & set(_ATTENTION)),
        "intermediate_lora": "ffn.up" in kinds,
        "output_lora": "ffn.down" in kinds,
        "composition_mode": "add",
        "dropout": 0.0,
        "init_weights": "lora",
        "use_gating": False,
        "leave_out": [],
    }
    return config, tensors


def _bottleneck(handle: Handle) -> tuple[dict[str, Any], dict[str, Tensor]]:
    switches = _switches(handle)
    settings = handle.config
    kinds = {site.role.split(".", 2)[-1] for site in handle.sites}
    if not kinds <= set(_PLACES):
        raise ConfigError(
            f"adapter '{handle.name}' stands at {', '.join(sorted(kinds - set(_PLACES)))}, where "
            f"AdapterHub has no bottleneck. It has {', '.join(sorted(_PLACES))}."
        )
    own_norm = bool(getattr(settings, "own_norm", False)) or switches.pop("ln_before", False)
    named = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    tensors: dict[str, Tensor] = {}
    for key, value in handle.module.tensors().items():
        role, _, part = key.partition(":")
        _, index, kind = role.split(".", 2)
        stem = f"{_ENCODER}layers.{index}.{_PLACES[kind]}.adapters.{handle.name}"
        for name in _part_names(part, own_norm):
            tensors[f"{stem}.{name}"] = value
    config = {
        "mh_adapter": "attn" in kinds,
        "output_adapter": "ffn" in kinds,
        "reduction_factor": handle.encoder.dim / settings.bottleneck,
        "non_linearity": named[settings.activation],
        "ln_before": own_norm,
        "ln_after": False,
        "init_weights": "bert",
        "leave_out": [],
        "dropout": 0.0,
        "is_parallel": False,
        "residual_before_ln": True,
        "scaling": 1.0,
        **switches,
    }
    return config, tensors


def _switches(handle: Handle) -> dict[str, Any]:
    settings = handle.config
    if handle.method_name == "houlsby":
        return {"original_ln_before": False, "original_ln_after": True, "residual_before_ln": True}
    if handle.method_name == "pfeiffer":
        reads = settings.input == "stream"
        if settings.residual == "stream" and not reads:
            raise ConfigError(
                f"adapter '{handle.name}' reads the output and is added to the stream, which no "
                "switch of AdapterHub says. Use adapter.input=stream."
            )
        kept = settings.residual == "output"
        return {"original_ln_before": reads, "original_ln_after": True, "residual_before_ln": kept}
    if handle.method_name == "parallel" and settings.input != "normed":
        scale = settings.scale if settings.scale_kind == "fixed" else settings.scale_kind
        return {
            "original_ln_before": False,
            "original_ln_after": True,
            "is_parallel": True,
            "scaling": scale,
            "ln_before": settings.input == "own_ln",
        }
    raise ConfigError(
        f"adapter '{handle.name}' of the method '{handle.method_name}' was to be exported to "
        "AdapterHub, which has no such adapter. It has lora, houlsby, pfeiffer and parallel with "
        "the residual stream as input."
    )


def _part_names(part: str, own_norm: bool) -> list[str]:
    """Return the names of one tensor there; a norm is stored twice."""
    place = int(own_norm)
    names: Mapping[str, list[str]] = {
        "bottleneck.down.weight": [f"adapter_down.{place}.weight"],
        "bottleneck.down.bias": [f"adapter_down.{place}.bias"],
        "bottleneck.up.weight": ["adapter_up.weight"],
        "bottleneck.up.bias": ["adapter_up.bias"],
        "bottleneck.norm.weight": ["adapter_norm_before.weight", "adapter_down.0.weight"],
        "bottleneck.norm.bias": ["adapter_norm_before.bias", "adapter_down.0.bias"],
        "scale": ["scaling"],
    }
    return names[part]

"""Writing an attachment as a PEFT LoRA folder.

Whatever merges can leave: a product as it is, another change of a linear map or a convolution by
its exact rank, a norm or a depthwise kernel as a whole module with the change already in it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from speechadapt.adapters import norms
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.interop.peft import CONFIG_FILE, WEIGHTS_FILE, WRAPPING
from speechadapt.adapters.lowrank import Factors, LowRankAdapter, bias_of, weight_of
from speechadapt.adapters.norms import NormAdapter
from speechadapt.adapters.spec import Adapter, WeightDelta
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write, atomic_write_json
from speechadapt.encoders.base import Encoder

_LEAST_SHARE = 1e-7  # singular values below this share of the largest are rounding


@dataclass
class _Folder:
    """What is to be written."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    biased: bool = False
    whole: list[str] = field(default_factory=list)


@torch.no_grad()
def write(
    handle: Handle,
    folder: Path,
    architecture: str | None = None,
    head: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write an attachment as a folder that PEFT loads onto the original base.

    Args:
        handle: An attachment whose method merges.
        folder: Where to write; it is made.
        architecture: The transformers class the folder is to be loaded onto, such as
            `WhisperForConditionalGeneration`; the one named by the base's config where None.
        head: Tensors of a task head to save along, by their names in that class.

    Returns:
        `folder`.

    Raises:
        ConfigError: The method does not merge, or the class does not hold the encoder.
    """
    _check_merges(handle)
    out = _Folder()
    prefix = encoder_path(handle.encoder, architecture)
    factors: dict[str, Factors] = {}
    for role, adapter in handle.module.by_role().items():
        path = prefix + handle.encoder.site(role).write
        module = handle.encoder.model.get_submodule(handle.encoder.site(role).write)
        found = _factors(handle, adapter, module)
        if found is None:
            _add_whole(out, path, module, _delta(handle, adapter, module))
        else:
            factors[path] = found
    if not factors:
        raise ConfigError(
            f"adapter '{handle.name}' was to be exported as a PEFT LoRA, but changes only norms or "
            "depthwise kernels. Merge it into a model instead."
        )
    out.biased = any(one.bias is not None for one in factors.values())
    for path, one in factors.items():
        _add_product(out, path, one)
    for name, value in (head or {}).items():
        out.tensors[name if name.startswith(WRAPPING) else WRAPPING + name] = value.contiguous()
        top = name.removeprefix(WRAPPING).partition(".")[0]
        out.whole += [top] if top not in out.whole else []
    tensors = {name: value.detach().cpu().clone() for name, value in out.tensors.items()}
    atomic_write(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    atomic_write_json(folder / CONFIG_FILE, _settings(handle, out))
    return folder


def encoder_path(encoder: Encoder, architecture: str | None = None) -> str:
    """Return the path of the encoder inside a transformers class, ending in a dot, or nothing.

    Args:
        encoder: The encoder.
        architecture: The class; the one named by the base's config where None, and the encoder's
            own module where it names none.

    Raises:
        ConfigError: There is no such class, or it does not hold this kind of encoder.
    """
    named = getattr(encoder.model.config, "architectures", None) or [""]
    wanted, kind = architecture or named[0], type(encoder.model)
    if not wanted or wanted == kind.__name__:
        return ""
    paths = [path for path, module in _skeleton(encoder, wanted) if type(module) is kind]
    if not paths:
        raise ConfigError(
            f"export.architecture '{wanted}' was asked for, which is no transformers class that "
            f"holds a {kind.__name__} of this config."
        )
    return paths[0] + "." if paths[0] else ""


def _skeleton(encoder: Encoder, architecture: str) -> list[tuple[str, nn.Module]]:
    """Return the modules of a class built without weights; none where it cannot be built."""
    import transformers

    model_class = getattr(transformers, architecture, None)
    config: Any = copy.deepcopy(encoder.model.config)
    if getattr(config, "vocab_size", 0) is None:
        config.vocab_size = 1  # an encoder's config need not say it, a recogniser asks for it
    if model_class is None:
        return []
    try:
        with torch.device("meta"):
            model: nn.Module = model_class(config)
    except (AttributeError, TypeError, ValueError):  # a class made for other configs
        return []
    return list(model.named_modules())


def _check_merges(handle: Handle) -> None:
    if not handle.method.merges:
        raise ConfigError(
            f"adapter '{handle.name}' was to be exported as a PEFT LoRA, but its method "
            f"'{handle.method_name}' does not amount to a change of weights. PEFT cannot hold it."
        )
    if handle.merged:
        raise ConfigError(
            f"adapter '{handle.name}' is merged into the encoder, whose weights are then no longer "
            "the original ones. Undo the merge before exporting."
        )


def _delta(handle: Handle, adapter: Adapter, module: nn.Module) -> WeightDelta:
    if isinstance(adapter, NormAdapter):
        return norms.weight_delta(adapter, module)
    assert handle.method.weight_delta is not None
    return handle.method.weight_delta(adapter, module)


def _factors(handle: Handle, adapter: Adapter, module: nn.Module) -> Factors | None:
    """Return a change as one product; None where PEFT must hold the whole module."""
    if isinstance(module, nn.Conv1d) and module.groups > 1:
        return None  # PEFT's product at a convolution in groups has another layout
    if isinstance(adapter, LowRankAdapter):
        found = adapter.factors(module)
        return None if found is None else _smallest(found)
    if not isinstance(module, nn.Linear | nn.Conv1d):
        return None
    return _decompose(_delta(handle, adapter, module))


def _smallest(factors: Factors) -> Factors:
    """Write a product of more columns than its weight has as the weight itself times the unit."""
    out, wide = factors.up.shape[0], factors.down.flatten(1).shape[1]
    if factors.rank <= min(out, wide):
        return factors
    unit = torch.eye(out).to(factors.up).reshape(out, out, *factors.up.shape[2:])
    weight = factors.up.flatten(1) @ factors.down.flatten(1)
    down = weight.reshape(out, *factors.down.shape[1:])
    return Factors(down, unit, factors.scale, factors.bias)


def _decompose(delta: WeightDelta) -> Factors:
    weight = delta.weight.double()
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    rank = max(1, int((values > _LEAST_SHARE * values[0]).sum()))
    root = values[:rank].sqrt()
    taps = (1,) * (weight.dim() - 2)
    return Factors(
        down=(root[:, None] * right[:rank]).reshape(rank, *weight.shape[1:]).to(delta.weight),
        up=(left[:, :rank] * root).reshape(-1, rank, *taps).to(delta.weight),
        bias=delta.bias,
    )


def _add_product(out: _Folder, path: str, factors: Factors) -> None:
    out.ranks[path] = factors.rank
    out.alphas[path] = factors.scale * factors.rank
    out.tensors[f"{WRAPPING}{path}.lora_A.weight"] = factors.down.contiguous()
    out.tensors[f"{WRAPPING}{path}.lora_B.weight"] = factors.up.contiguous()
    if out.biased:
        bias = factors.up.new_zeros(factors.up.shape[0]) if factors.bias is None else factors.bias
        out.tensors[f"{WRAPPING}{path}.lora_B.bias"] = bias


def _add_whole(out: _Folder, path: str, module: nn.Module, delta: WeightDelta) -> None:
    out.whole.append(path)
    out.tensors[f"{WRAPPING}{path}.weight"] = weight_of(module) + delta.weight
    bias = bias_of(module)
    if bias is not None:
        added = bias if delta.bias is None else bias + delta.bias
        out.tensors[f"{WRAPPING}{path}.bias"] = added


def _settings(handle: Handle, out: _Folder) -> dict[str, Any]:
    rank = _commonest(out.ranks)
    alpha = _commonest(out.alphas)
    source = handle.encoder.source
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None if source is None else source.name,
        "revision": None if source is None or source.revision == "local" else source.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _whole_number(alpha),
        "rank_pattern": {path: one for path, one in out.ranks.items() if one != rank},
        "alpha_pattern": {
            path: _whole_number(one) for path, one in out.alphas.items() if one != alpha
        },
        "target_modules": sorted(out.ranks),
        "modules_to_save": out.whole or None,
        "lora_dropout": 0.0,
        "lora_bias": out.biased,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _commonest(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0]


def _whole_number(value: float) -> float | int:
    return int(value) if value == int(value) else value

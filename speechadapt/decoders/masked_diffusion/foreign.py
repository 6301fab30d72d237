"""Reading the weights of SMDM and of Whisfusion into our network, with nothing left over.

Both keep the three projections of self-attention in one matrix, interleaved head by head; ours lie
one after the other. Whisfusion has cross-attention in every layer and no gate.

Source: the layouts of ML-GSAI/SMDM and taeyoun811/Whisfusion (`lit_gpt/diffmodel.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape

POSITIONS = 2048
_LAYER = re.compile(r"transformer\.h\.(\d+)\.(.+)")
_WHOLE = {
    "transformer.wte.weight": "embed.weight",
    "transformer.ln_f.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
_INSIDE = {
    "norm_1.weight": "norm_attention.weight",
    "attn.attn.weight": "attention.qkv.weight",
    "attn.proj.weight": "attention.out.weight",
    "norm_2.weight": "norm_feed_forward.weight",
    "mlp.swiglu.w1.weight": "feed_forward.gate.weight",
    "mlp.swiglu.w2.weight": "feed_forward.up.weight",
    "mlp.swiglu.w3.weight": "feed_forward.down.weight",
}
_CROSS = {
    "norm_cross.weight": "norm_cross.weight",
    "cross_attn.q_proj.weight": "cross.q.weight",
    "cross_attn.kv_proj.weight": "cross.kv.weight",
    "cross_attn.proj.weight": "cross.out.weight",
}


def read_foreign(
    path: Path, *, heads: int | None = None, positions: int = POSITIONS, pickled: bool = False
) -> DiffusionNetwork:
    """Read a file of SMDM or Whisfusion weights.

    Args:
        path: A safetensors file, or, with `pickled`, a torch file of tensors.
        heads: Attention heads; None takes 64 channels a head up to a width of 1024 and 128 above,
            as the published sizes have.
        positions: Most tokens that will be asked of the network.
        pickled: Read a `.pt` file; only tensors are read from it.

    Returns:
        A network of text alone for SMDM, one that takes frames of its own width for Whisfusion, in
        float32.

    Raises:
        CheckpointError: The file is missing or damaged, tensors are missing, in excess or of
            another shape, or it is a pickle that was not asked for.
        ConfigError: The heads do not divide the width.
    """
    tensors = _read(path, pickled)
    shape = foreign_shape(tensors, path.name, heads, positions)
    network = DiffusionNetwork(shape)
    network.load_state_dict(_translated(tensors, shape, path.name))
    return network.eval()


def foreign_shape(
    tensors: Mapping[str, Tensor], name: str, heads: int | None, positions: int
) -> DiffusionShape:
    """Tell the shape of a network from its tensors.

    Args:
        tensors: By their foreign names.
        name: The file, for messages.
        heads: Attention heads; None guesses.
        positions: Most tokens.

    Raises:
        CheckpointError: A tensor that says something about the shape is missing.
        ConfigError: The heads do not divide the width.
    """
    found = [int(match[1]) for key in tensors if (match := _LAYER.fullmatch(key))]
    needed = ("lm_head.weight", "transformer.h.0.mlp.swiglu.w1.weight")
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise CheckpointError(
            f"{name} has no {', '.join(missing)}; weights of SMDM or Whisfusion do. "
            f"It holds {len(tensors)} tensors, such as {sorted(tensors)[:2]}."
        )
    vocab_size, dim = tensors["lm_head.weight"].shape
    hears = any(".cross_attn." in key for key in tensors)
    count = heads or dim // (64 if dim <= 1024 else 128)
    if count < 1 or dim % count:
        raise ConfigError(f"{name} is {dim} wide, which {count} heads do not divide; name heads.")
    return DiffusionShape(
        vocab_size=vocab_size,
        dim=dim,
        layers=max(found) + 1,
        heads=count,
        feed_forward=tensors["transformer.h.0.mlp.swiglu.w1.weight"].shape[0],
        positions=positions,
        condition_dim=dim if hears else 0,
        gate="none" if hears else "zero",
        frame_code="none",
        length_head=False,
    )


def with_audio(
    network: DiffusionNetwork, condition_dim: int, changes: Mapping[str, object] | None = None
) -> DiffusionNetwork:
    """Return a network that also hears, with the weights of one of text alone.

    Args:
        network: A network of text alone.
        condition_dim: Width of the frames.
        changes: Other fields of the shape that concern the audio (`gate`, `frame_code`,
            `length_head`), `positions`, `dropout`, `streams` and `prefix`.

    Returns:
        A network whose cross-attention is new; with `gate="zero"` it writes what `network` writes,
        unless it has more streams.
    """
    wanted: dict[str, object] = {"condition_dim": condition_dim, **(changes or {})}
    shape: DiffusionShape = replace(network.shape, **wanted)  # type: ignore[arg-type]
    made = DiffusionNetwork(shape)
    own = made.state_dict()
    made.load_state_dict({**own, **network.state_dict()})
    return made


def _read(path: Path, pickled: bool) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no file '{path}'.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not pickled:
        raise CheckpointError(
            f"{path} is no safetensors file. A torch file is read only where pickled=True asks "
            "for it, and then only the tensors in it."
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, by what is wrong with the file
        raise CheckpointError(f"{path} cannot be read as tensors alone: {error}") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
        raise CheckpointError(f"{path} holds no table of tensors.")
    return {str(name).removeprefix("module."): one for name, one in state.items()}


def _translated(
    tensors: Mapping[str, Tensor], shape: DiffusionShape, name: str
) -> dict[str, Tensor]:
    inside = {**_INSIDE, **(_CROSS if shape.hears else {})}
    wanted = dict(_WHOLE) | {
        f"transformer.h.{number}.{theirs}": f"layers.{number}.{ours}"
        for number in range(shape.layers)
        for theirs, ours in inside.items()
    }
    missing, excess = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or excess:
        raise CheckpointError(
            f"{name} does not hold what {shape.layers} layers need: {len(missing)} tensors are "
            f"missing ({missing[:3]}), {len(excess)} are in excess ({excess[:3]})."
        )
    with torch.device("meta"):
        sizes = {key: tuple(one.shape) for key, one in DiffusionNetwork(shape).state_dict().items()}
    translated: dict[str, Tensor] = {}
    for theirs, ours in wanted.items():
        tensor = tensors[theirs].float()
        if tuple(tensor.shape) != sizes[ours]:
            raise CheckpointError(
                f"'{theirs}' of {name} is {tuple(tensor.shape)}, {sizes[ours]} was expected."
            )
        change = _CHANGES.get(ours.rsplit(".", 2)[-2])
        translated[ours] = change(tensor, shape.heads) if change else tensor
    return translated


def _apart(packed: Tensor, heads: int) -> Tensor:
    """Put queries, keys and values, interleaved by head, one after the other."""
    rows, dim = packed.shape
    return packed.view(heads, 3, rows // (3 * heads), dim).transpose(0, 1).reshape(rows, dim)


_CHANGES: Mapping[str, Callable[[Tensor, int], Tensor]] = {"qkv": _apart}

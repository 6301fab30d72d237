from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.masked_diffusion.foreign import read_foreign, with_audio

VOCAB, DIM, LAYERS, HEADS, INNER = 20, 16, 2, 4, 24


def theirs(cross: bool = False) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of SMDM, or of Whisfusion."""
    sizes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCAB, DIM),
        "transformer.wte.weight": (VOCAB + 1, DIM),
        "transformer.ln_f.weight": (DIM,),
    }
    for number in range(LAYERS):
        start = f"transformer.h.{number}"
        sizes |= {
            f"{start}.norm_1.weight": (DIM,),
            f"{start}.norm_2.weight": (DIM,),
            f"{start}.attn.attn.weight": (3 * DIM, DIM),
            f"{start}.attn.proj.weight": (DIM, DIM),
            f"{start}.mlp.swiglu.w1.weight": (INNER, DIM),
            f"{start}.mlp.swiglu.w2.weight": (INNER, DIM),
            f"{start}.mlp.swiglu.w3.weight": (DIM, INNER),
        }
        if cross:
            sizes |= {
                f"{start}.norm_cross.weight": (DIM,),
                f"{start}.cross_attn.q_proj.weight": (DIM, DIM),
                f"{start}.cross_attn.kv_proj.weight": (2 * DIM, DIM),
                f"{start}.cross_attn.proj.weight": (DIM, DIM),
            }
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(size, generator=generator) for name, size in sizes.items()}


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight


def turned(x: Tensor) -> Tensor:
    """Rotary positions on (positions, heads, width) by complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] / 10000 ** (torch.arange(half) / half)
    spun = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    return torch.cat([spun.real, spun.imag], -1)


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1)


def reference(weights: dict[str, Tensor], tokens: Tensor, frames: Tensor | None) -> Tensor:
    """The forward pass that these weights were made for, written from its description."""
    x = weights["transformer.wte.weight"][tokens]
    for number in range(LAYERS):
        own = {
            name.removeprefix(f"transformer.h.{number}."): one
            for name, one in weights.items()
            if name.startswith(f"transformer.h.{number}.")
        }
        packed = (norm(x, own["norm_1.weight"]) @ own["attn.attn.weight"].T).view(
            len(x), HEADS, 3, DIM // HEADS
        )
        query, key, value = packed.unbind(2)
        x = x + attended(turned(query), turned(key), value) @ own["attn.proj.weight"].T
        if frames is not None:
            query = norm(x, own["norm_cross.weight"]) @ own["cross_attn.q_proj.weight"].T
            key, value = (frames @ own["cross_attn.kv_proj.weight"].T).chunk(2, -1)
            parts = [one.view(len(one), HEADS, -1) for one in (query, key, value)]
            x = x + attended(*parts) @ own["cross_attn.proj.weight"].T
        y = norm(x, own["norm_2.weight"])
        inner = functional.silu(y @ own["mlp.swiglu.w1.weight"].T)
        x = x + (inner * (y @ own["mlp.swiglu.w2.weight"].T)) @ own["mlp.swiglu.w3.weight"].T
    return norm(x, weights["transformer.ln_f.weight"]) @ weights["lm_head.weight"].T


@pytest.mark.parametrize("cross", [False, True], ids=["smdm", "whisfusion"])
def test_weights_of_another_project_compute_what_they_did_there(
    tmp_path: Path, cross: bool
) -> None:
    weights = theirs(cross)
    save_file(weights, tmp_path / "model.safetensors")
    network = read_foreign(tmp_path / "model.safetensors", heads=HEADS, positions=9)
    tokens = torch.tensor([1, 20, 5, 20, 7, 0, 3])
    frames = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2)) if cross else None
    condition = None
    if frames is not None:
        condition = network.condition(frames[None], torch.tensor([6]))
    with torch.no_grad():
        found = network.head(network(tokens[None, None], None, condition))[0, 0]
    assert torch.allclose(found, reference(weights, tokens, frames), atol=1e-5)
    assert network.shape.gate == ("none" if cross else "zero")


def test_heads_are_guessed_as_the_published_sizes_have_them(tmp_path: Path) -> None:
    from speechadapt.decoders.masked_diffusion.foreign import foreign_shape

    for dim, heads in ((256, 4), (768, 12), (1024, 16), (1280, 10), (2048, 16)):
        with torch.device("meta"):
            tensors = {
                "lm_head.weight": torch.zeros(32000, dim),
                "transformer.h.17.norm_1.weight": torch.zeros(dim),
                "transformer.h.0.mlp.swiglu.w1.weight": torch.zeros(4 * dim, dim),
            }
        shape = foreign_shape(tensors, "x", None, 2048)
        assert (shape.heads, shape.layers, shape.feed_forward) == (heads, 18, 4 * dim)
    with pytest.raises(ConfigError, match="which 7 heads do not divide"):
        foreign_shape(tensors, "x", 7, 2048)


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = theirs()
    weights["transformer.h.1.extra"] = weights.pop("transformer.h.1.norm_2.weight")
    save_file(weights, path)
    with pytest.raises(CheckpointError) as caught:
        read_foreign(path, heads=HEADS)
    assert "1 tensors are missing (['transformer.h.1.norm_2.weight'])" in str(caught.value)
    assert "1 are in excess (['transformer.h.1.extra'])" in str(caught.value)


def test_a_layer_without_its_cross_attention_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = theirs(cross=True)
    for name in [name for name in weights if name.startswith("transformer.h.1.cross_attn")]:
        del weights[name]
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="3 tensors are missing"):
        read_foreign(path, heads=HEADS)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = theirs()
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:-1].clone()
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"wte.weight' of .* is \(20, 16\), \(21, 16\) was"):
        read_foreign(path, heads=HEADS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="there is no file"):
        read_foreign(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"has no lm_head\.weight"):
        read_foreign(path)
    save_file(theirs(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_foreign(path)


def test_a_torch_file_is_read_on_request_and_only_tensors_of_it(tmp_path: Path) -> None:
    path = tmp_path / "stage2.pt"
    torch.save({"state_dict": {f"module.{k}": one for k, one in theirs(True).items()}}, path)
    with pytest.raises(CheckpointError, match="only where pickled=True asks"):
        read_foreign(path, heads=HEADS)
    assert read_foreign(path, heads=HEADS, pickled=True).shape.condition_dim == DIM
    torch.save({"state_dict": {"lm_head.weight": Path("x")}}, path)
    with pytest.raises(CheckpointError, match="cannot be read as tensors alone"):
        read_foreign(path, pickled=True)
    torch.save({"steps": 3}, path)
    with pytest.raises(CheckpointError, match="holds no table of tensors"):
        read_foreign(path, pickled=True)


def test_a_text_network_gains_ears_and_says_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(theirs(), path)
    text = read_foreign(path, heads=HEADS, positions=9)
    hearing = with_audio(text, 10, {"frame_code": "count", "length_head": True}).eval()
    tokens = torch.tensor([1, 20, 5, 20])[None, None]
    condition = hearing.condition(torch.randn(1, 5, 10), torch.tensor([5]))
    with torch.no_grad():
        assert torch.equal(hearing(tokens, None, condition), text(tokens))
    assert hearing.length_head is not None

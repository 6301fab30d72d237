"""Low-bit adapters: levels and sizes as published, packed to the last entry, merged as the host."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.merge import merge
from speechadapt.adapters.methods.low_bit import (
    EPSILON,
    LowBitConfig,
    Quantised,
    codebook,
    make,
    pack,
    parameters,
    resolve,
    unpack,
)
from speechadapt.adapters.spec import Adapter
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.sites import Site, at

FFN = Site("layer.0.ffn", "fc1", "fc2", 5, 5, tap="norm")
WIDE = {"bottleneck": 32, "input": "residual"}


@pytest.mark.parametrize(
    ("bits", "levels", "edges"),
    [
        (1, {0: -0.6745, 1: 0.6745}, {0: 0.0}),
        (2, {0: -1.2657, 1: -0.3778, 2: 0.3778, 3: 1.2657}, {0: -0.8217, 1: 0.0, 2: 0.8217}),
        (4, {0: -2.2655, 15: 2.2655}, {7: 0.0}),
    ],
)
def test_levels_are_those_published(bits: int, levels: dict[int, float], edges) -> None:
    found, between = codebook(bits)
    assert len(found) == 2**bits == len(between) + 1
    assert {key: round(float(found[key]), 4) for key in levels} == levels
    assert {key: round(float(between[key]), 4) for key in edges} == edges


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_levels_are_the_medians_of_their_cells(bits: int) -> None:
    levels, edges = (one.double() for one in codebook(bits))
    ends = torch.cat([torch.tensor([-math.inf]), edges, torch.tensor([math.inf])]).double()
    shares = torch.special.ndtr(ends)
    middle = (shares[1:] + shares[:-1]) / 2
    torch.testing.assert_close(torch.special.ndtr(levels), middle, rtol=0, atol=1e-5)


def test_the_median_makes_the_mean_absolute_error_least_not_the_squared_one() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(200_000)
    (level,), mean = codebook(1)[0][1:].tolist(), math.sqrt(2 / math.pi)
    apart = {one: (numbers.abs() - one) for one in (level, mean)}
    assert float(apart[level].abs().mean()) == pytest.approx(0.473, abs=0.002)
    assert float(apart[mean].abs().mean()) == pytest.approx(0.483, abs=0.002)
    assert float(apart[level].square().mean()) == pytest.approx(0.379, abs=0.003)
    assert float(apart[mean].square().mean()) == pytest.approx(0.363, abs=0.003)


def test_a_matrix_has_as_many_values_as_levels_around_its_mean() -> None:
    torch.manual_seed(0)
    matrix = 3 + 2 * torch.randn(7, 11)
    found = Quantised(1)(matrix)
    mean, spread = matrix.mean(), matrix.std()
    above = matrix > mean
    torch.testing.assert_close(found[above].unique(), (mean + 0.67449 * spread)[None])
    torch.testing.assert_close(found[~above].unique(), (mean - 0.67449 * spread)[None])


def test_an_entry_on_an_edge_gets_a_level() -> None:
    matrix = torch.tensor([[-1.0, 0.0, 1.0]])
    assert sorted(Quantised(1).codes(matrix).tolist()) == [0, 0, 1]
    flat = torch.full((2, 2), 0.25)
    assert torch.equal(Quantised(1)(flat), flat)


def test_gradients_pass_straight_through_and_reach_the_statistics() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(6, 9, requires_grad=True)
    above = torch.randn(6, 9)
    (gradient,) = torch.autograd.grad((Quantised(2)(matrix) * above).sum(), matrix)
    # by hand: levels do not move, each entry moves as if nothing were rounded
    mean, spread = matrix.mean(), matrix.std()
    rounded = Quantised(2).levels[Quantised(2).codes(matrix)].reshape(6, 9)
    z = (matrix - mean) / (spread + EPSILON)
    by_hand = spread * (rounded + z - z.detach()) + mean
    (wanted,) = torch.autograd.grad((by_hand * above).sum(), matrix)
    torch.testing.assert_close(gradient, wanted)
    # scaling a matrix scales its levels, which only gradients through the statistics know
    slope = (gradient * matrix).sum()
    torch.testing.assert_close(slope, (by_hand * above).sum(), rtol=1e-3, atol=1e-3)


def random_site(config: LowBitConfig, size: float = 1.0) -> Adapter:
    torch.manual_seed(0)
    adapter = make(FFN, config)
    with torch.no_grad():
        for one in adapter.parameters():
            one.copy_(size * torch.randn(one.shape))
    return adapter


@pytest.mark.parametrize("size", [1.0, 1e-3])  # the small one is not far above EPSILON
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_odd_sizes_come_back_from_a_file_bit_for_bit(bits: int, size: float) -> None:
    config = LowBitConfig(settings={"bottleneck": 3, "input": "normed"}, bits=bits)  # type: ignore[arg-type]
    adapter, other = random_site(config, size), make(FFN, config)
    held = {key: one.detach().clone() for key, one in pack(adapter).items()}
    assert len(held["packed.codes"]) == 2 * math.ceil(15 * bits / 8)
    assert held.keys() == {"packed.codes", "packed.statistics"}
    unpack(other, held)
    for name in ("down", "up"):
        ours = getattr(adapter.get_submodule("bottleneck"), name).weight
        theirs = getattr(other.get_submodule("bottleneck"), name).weight
        assert torch.equal(ours, theirs)
    again = pack(other)
    assert all(torch.equal(again[key], one) for key, one in held.items())


def test_training_goes_on_from_a_file() -> None:
    config = LowBitConfig(settings={"bottleneck": 3, "input": "normed"})
    other = make(FFN, config)
    unpack(other, pack(random_site(config)))
    down = other.get_submodule("bottleneck.down")
    before = down.weight.detach().clone()
    optimiser = torch.optim.AdamW(other.parameters(), 0.5)
    down.weight.square().sum().backward()
    optimiser.step()
    method = resolve(config)
    assert method.after_step is not None
    method.after_step([other], 1)
    trained = down.get_parameter("parametrizations.weight.original").detach()
    torch.testing.assert_close(down.weight.mean(), trained.mean(), rtol=0, atol=0.5)
    assert not torch.equal(down.weight, before)
    fresh = Quantised(1)(trained)
    torch.testing.assert_close(down.weight.detach(), fresh)


def test_a_damaged_file_is_refused() -> None:
    config = LowBitConfig(settings={"bottleneck": 3, "input": "normed"})
    held = pack(random_site(config))
    for change, message in (
        ({"packed.codes": held["packed.codes"][:-1]}, r"'packed\.codes' is \[3\], but \[4\]"),
        ({"odd": torch.zeros(1)}, "'odd' is one tensor too many"),
        ({"packed.codes": held["packed.codes"].float()}, "stored as torch.float32"),
    ):
        with pytest.raises(CheckpointError, match=message):
            unpack(make(FFN, config), {**held, **change})
    del held["packed.statistics"]
    with pytest.raises(CheckpointError, match=r"'packed\.statistics' is missing"):
        unpack(make(FFN, config), held)


def test_biases_are_left_out_unless_they_are_kept() -> None:
    settings = {"bottleneck": 3, "input": "normed"}
    assert parameters(FFN, LowBitConfig(settings=settings)) == 2 * 15
    assert parameters(FFN, LowBitConfig(settings=settings, biases=True)) == 2 * 15 + 3 + 5
    kept = pack(make(FFN, LowBitConfig(settings=settings, biases=True)))
    assert {"bottleneck.down.bias", "bottleneck.up.bias"} < kept.keys()


SIZES = {
    "Bi-AdaptFormer": ("parallel", WIDE, ("ffn",)),
    "Bi-LoRA": ("lora", {"rank": 32}, ("attn.q", "attn.v")),
}


@pytest.mark.parametrize("name", SIZES)
def test_one_bit_at_whisper_small_is_28_times_smaller(name: str, tmp_path: Path) -> None:
    """The sizes are printed: pytest -s."""
    host, settings, places = SIZES[name]
    config = LowBitConfig(host=host, settings=settings)
    exact, packed = {}, {}
    for place in places:
        site = at("layer.0." + place, "q", 768, 768)
        site = Site("layer.0.ffn", "fc1", "fc2", 768, 768, tap="norm") if place == "ffn" else site
        adapter = make(site, config)
        own = [one.detach() for one in adapter.parameters()]
        for layer in range(12):
            role = f"layer.{layer}.{place}"
            exact |= {f"{role}:{number}": one.clone() for number, one in enumerate(own)}
            packed |= {f"{role}:{key}": one.clone() for key, one in pack(adapter).items()}
    sizes = {}
    for kind, tensors in (("fp32", exact), ("1 bit", packed)):
        save_file(tensors, tmp_path / kind)
        payload = sum(one.numel() * one.element_size() for one in tensors.values())
        sizes[kind] = payload, (tmp_path / kind).stat().st_size
    matrices = 2 * 12 * len(places)
    assert sizes["fp32"][0] == matrices * 32 * 768 * 4
    assert sizes["1 bit"][0] == matrices * (32 * 768 // 8 + 2 * 4)
    payload, whole = (sizes["fp32"][n] / sizes["1 bit"][n] for n in (0, 1))
    print(
        f"{name}, r=32, 12 x 768: payload {sizes['1 bit'][0]:,} bytes, {payload:.1f} times "
        f"smaller; whole file {sizes['1 bit'][1]:,} bytes, {whole:.1f} times smaller"
    )
    assert payload >= 28
    assert whole >= 28


def test_bi_lora_merges_from_memory_and_from_its_file(load, move, frames, tmp_path) -> None:
    encoder, other = load(), load()
    config = {"host": "lora", "settings": {"rank": 3, "alpha": 6.0}}
    handle = attach(encoder, "low_bit", name="bi", config=config, roles=["attn.q", "ffn.up"])
    move(handle)
    wanted, base = frames(encoder, "bi"), frames(encoder, None)
    assert handle.method.merges
    merge(encoder, "bi")
    found = frames(encoder, "bi")
    assert not torch.allclose(found, base, atol=1e-3)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    folder = store.save(handle, tmp_path / "bi")
    size = sum(one.numel() for one in handle.parameters())
    written = load_file(folder / store.WEIGHTS)
    assert sum(one.numel() * one.element_size() for one in written.values()) < size / 2
    store.load(other, folder, name="bi", any_base=True)
    assert torch.equal(frames(other, "bi"), wanted)
    merge(other, "bi")
    torch.testing.assert_close(frames(other, "bi"), found, rtol=0, atol=1e-5)

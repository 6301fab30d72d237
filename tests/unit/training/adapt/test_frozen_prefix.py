"""Going on from kept states is the same as computing them, for every encoder family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import attach
from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.frozen_prefix import (
    DiskCache,
    FrozenPrefix,
    MemoryCache,
    Reuse,
    frozen_depth,
    layer_count,
)

FAMILIES = [("w2v_bert", "full"), ("whisper", "full"), ("whisper", "native"), ("ast", "full")]
SAMPLES = (15000, 16000, 12345, 9000)
Folder = Callable[[str], Path]
Make = Callable[..., Tensor]


@pytest.fixture(params=FAMILIES, ids="-".join)
def encoder(request: pytest.FixtureRequest, tiny_folder: Folder) -> Encoder:
    """Return a tiny encoder of each family and padding."""
    family, padding = request.param
    return load_encoder(tiny_folder(family), padding=padding)


def upper(encoder: Encoder) -> Handle:
    """Adapt the upper of two layers, so that it matters."""
    handle = attach(encoder, "lora", config={"rank": 2}, roles=["layer.1.attn.v", "layer.1.ffn.up"])
    torch.manual_seed(0)
    for parameter in handle.parameters():
        nn.init.normal_(parameter, std=0.3)
    return handle


def clips(signal: Make) -> list[Tensor]:
    """Return four clips of different lengths."""
    return [signal(samples, seed) for seed, samples in enumerate(SAMPLES)]


def gradients(handle: Handle, frames: Tensor) -> list[Tensor]:
    """Return the gradients of a loss on frames."""
    for parameter in handle.parameters():
        parameter.grad = None
    frames.square().sum().backward()
    return [parameter.grad for parameter in handle.parameters()]


def test_a_batch_gone_on_from_is_equal_bit_for_bit(encoder: Encoder, signal: Make) -> None:
    handle = upper(encoder)
    features, lengths = encoder.extract(clips(signal))
    plain, valid = encoder(features, lengths)
    wanted = gradients(handle, plain)
    assert any(part.any() for part in wanted)
    reuse = Reuse(FrozenPrefix(encoder, 1), MemoryCache())
    for given in ((features, lengths), (None, None)):
        frames, counts = reuse.whole("batch", *given)
        assert torch.equal(frames, plain)
        assert torch.equal(counts, valid)
        for one, other in zip(gradients(handle, frames), wanted, strict=True):
            assert torch.equal(one, other)


def test_rows_kept_one_by_one_are_equal_up_to_rounding(encoder: Encoder, signal: Make) -> None:
    upper(encoder)
    waveforms = clips(signal)
    with torch.no_grad():
        plain, valid = encoder.encode(waveforms)
        fresh = {row: encoder.extract([clip]) for row, clip in enumerate(waveforms)}
        reuse = Reuse(FrozenPrefix(encoder, 1), MemoryCache())
        names = [f"row-{row}" for row in fresh]
        first, counts = reuse.each(names, fresh)
        # the same rows in another order and beside others, from what is kept alone
        again, _ = reuse.each([names[2], names[0], names[2]], {})
    assert torch.equal(counts, valid)
    for row, length in enumerate(valid.tolist()):
        torch.testing.assert_close(first[row, :length], plain[row, :length], rtol=1e-4, atol=2e-5)
    for row, kept in ((0, 2), (1, 0)):
        length = int(valid[kept])
        torch.testing.assert_close(again[row, :length], plain[kept, :length], rtol=1e-4, atol=2e-5)


def test_a_prefix_sees_no_adapter_and_leaves_no_trace(encoder: Encoder, signal: Make) -> None:
    features, lengths = encoder.extract(clips(signal))
    prefix = FrozenPrefix(encoder, 2)
    with torch.no_grad():
        before, _ = encoder(features, lengths)
        states = prefix.states(features, lengths)
        upper(encoder)
        assert torch.equal(prefix.states(features, lengths), states)
        adapted, _ = encoder(features, lengths)
        assert not torch.equal(adapted, before)
        assert torch.equal(prefix.resume(states, features, lengths)[0], before)
        assert torch.equal(encoder(features, lengths)[0], adapted)
    assert not any("forward" in module.__dict__ for module in encoder.modules())


def test_no_layer_below_is_computed_again(encoder: Encoder, signal: Make) -> None:
    features, lengths = encoder.extract(clips(signal))
    prefix = FrozenPrefix(encoder, 1)
    states = prefix.states(features, lengths)
    prefix.resume(states, features, lengths)  # learns the shape that the stem gives
    run: list[str] = []
    for role in ("attn.q", "attn.v"):
        module = encoder.model.get_submodule(encoder.sites[f"layer.0.{role}"].read)
        module.register_forward_hook(lambda module, args, output: run.append("run"))
    prefix.resume(states, features, lengths)
    assert run == []
    encoder(features, lengths)
    assert run == ["run", "run"]


def test_the_depth_is_that_of_the_lowest_thing_trained(tiny_folder: Folder) -> None:
    def depth(family: str, method: str, *roles: str, norms: str = "none") -> int:
        encoder = load_encoder(tiny_folder(family))
        return frozen_depth(
            encoder, attach(encoder, method, roles=roles, train_norms=norms, config={})
        )

    assert depth("whisper", "lora", "layer.1.attn.q") == 1
    assert depth("whisper", "lora", "layer.1.attn.q", norms="all") == 0
    assert depth("whisper", "lora", "layer.1.attn.q", norms="adapted") == 1
    assert depth("whisper", "lora", "stem.conv.1", "layer.1.attn.q") == 0
    assert depth("w2v_bert", "lora", "attn.q") == 0
    upper = ("layer.1.attn", "layer.1.attn.[kv]", "encoder")
    assert depth("whisper", "parallel_streams", *upper) == 0  # streams are rows of layer 0 too
    encoder = load_encoder(tiny_folder("ast"))
    assert frozen_depth(encoder, None) == layer_count(encoder) == 2


def entry(seed: int = 0) -> dict[str, Tensor]:
    """Return made states of two rows."""
    states = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed))
    return {"states": states, "lengths": torch.tensor([5, 3]), "shape": torch.tensor([80, 10])}


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_is_kept_comes_back(kind: str, tmp_path: Path) -> None:
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path / "cache")
    assert "a" not in cache
    cache.put("a", entry())
    assert "a" in cache
    assert {name: part.tolist() for name, part in cache.get("a").items()} == {
        name: part.tolist() for name, part in entry().items()
    }
    number, size = cache.size()
    assert number == 1
    assert size >= 2 * 5 * 4 * 4


def test_half_precision_rounds_and_halves(tmp_path: Path) -> None:
    for cache in (MemoryCache("fp16"), DiskCache(tmp_path, "fp16")):
        cache.put("a", entry())
        kept = cache.get("a")["states"]
        assert kept.dtype == torch.float16
        assert 0 < (kept.float() - entry()["states"]).abs().max() < 2e-3


def test_states_in_half_precision_are_gone_on_from_in_full(
    tiny_folder: Folder, signal: Make
) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    features, lengths = encoder.extract(clips(signal))
    reuse = Reuse(FrozenPrefix(encoder, 1), MemoryCache("fp16"))
    frames, _ = reuse.whole("a", features, lengths)
    plain, _ = encoder(features, lengths)
    assert frames.dtype == torch.float32
    difference = (frames - plain)[0].abs().max()
    assert 0 < difference < 0.05
    assert torch.equal(reuse.whole("a", None, None)[0], frames)  # also at its first use
    assert reuse.seconds > 0


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put("a", entry())
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"a\.safetensors of the prefix cache .* Delete"):
        cache.get("a")

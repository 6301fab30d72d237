from __future__ import annotations

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.adapters.compose.mera import unit_activations, unit_weights
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment, attachments
from speechadapt.core.errors import ConfigError, SiteError

WIDTH = 6
SETTINGS = {"bottleneck": WIDTH}


def twins(load, trained, method="parallel", **options):
    """Attach an adapter and a copy of it whose hidden units stand in another order."""
    encoder = load()
    first, second = trained(encoder, method, names="ab", config=SETTINGS, **options)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        for mine, copy in zip(first.module.adapters(), second.module.adapters(), strict=True):
            copy.load_state_dict(mine.state_dict())
            inner = copy.bottleneck
            inner.down.weight.copy_(inner.down.weight[order])
            inner.down.bias.copy_(inner.down.bias[order])
            inner.up.weight.copy_(inner.up.weight[:, order])
    return encoder


@pytest.mark.parametrize("method", ["parallel", "houlsby", "pfeiffer"])
@pytest.mark.parametrize("how", ["wts", "acts"])
def test_a_permuted_copy_is_recovered_exactly(load, trained, frames, clips, how, method):
    encoder = twins(load, trained, method)
    alone = frames(encoder, "a")
    torch.testing.assert_close(frames(encoder, "b"), alone, rtol=0, atol=1e-5)
    compose(encoder, f"mera(a, b, method={how})", name="merged", clips=clips)
    own, merged = attachment(encoder, "a"), attachment(encoder, "merged")
    for key, tensor in own.module.tensors().items():
        assert torch.equal(merged.module.tensors()[key], tensor), key
    torch.testing.assert_close(frames(encoder, "merged"), alone, rtol=0, atol=1e-6)


def test_without_alignment_the_copy_is_far_off(load, trained, frames):
    encoder = twins(load, trained)
    alone = frames(encoder, "a")
    compose(encoder, "mera(a, b, method=avg)", name="merged")
    effect = (alone - frames(encoder, None)).norm()
    assert float((frames(encoder, "merged") - alone).norm()) > 0.2 * float(effect)


def test_soft_alignment_is_close(load, trained, frames):
    encoder = twins(load, trained)
    text = "mera(a, b, solver=sinkhorn, temperature=0.01)"
    compose(encoder, text, name="merged")
    torch.testing.assert_close(frames(encoder, "merged"), frames(encoder, "a"), rtol=0, atol=1e-3)


def test_sum_and_weights(load, trained):
    encoder = load()
    trained(encoder, names="ab", config=SETTINGS)
    compose(encoder, "mera(a, b, method=sum)", name="sum")
    compose(encoder, "mera(a: 3, b: 1, method=avg)", name="weighted")
    tables = {name: one.module.tensors() for name, one in attachments(encoder).items()}
    for key in tables["a"]:
        first, second = tables["a"][key], tables["b"][key]
        torch.testing.assert_close(tables["sum"][key], first + second)
        torch.testing.assert_close(tables["weighted"][key], 0.75 * first + 0.25 * second)


def test_what_is_merged_is_an_ordinary_adapter(load, trained, frames, tmp_path):
    encoder = load()
    trained(encoder, names="ab", config=SETTINGS)
    (name,) = compose(encoder, "mera(a, b)")
    handle = attachment(encoder, name)
    assert handle.composition is None
    store.save(handle, tmp_path / "merged")
    again = load()
    store.load(again, tmp_path / "merged")
    assert torch.equal(frames(again, "merged"), frames(encoder, name))


def test_units_are_described_by_weights_and_by_activations(load, trained, clips):
    encoder = load()
    (handle,) = trained(encoder, names="a", config=SETTINGS)
    described = unit_weights(handle)
    assert {tuple(one.shape) for one in described.values()} == {(WIDTH, 32 + 1 + 32)}
    seen = unit_activations(encoder, handle, clips)
    assert set(seen) == {site.role for site in handle.sites}
    counts = {one.shape[1] for one in seen.values()}
    assert counts == {sum(int(encoder.encode([clip])[1]) for clip in clips)}
    assert all(bool((one >= 0).all()) for one in seen.values())  # behind a relu


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ({"method": "lora"}, ConfigError, r"'c' is of the method 'lora'. .* svd"),
        ({"method": "parallel"}, ConfigError, r"'c' is parallel .*bottleneck=64"),
        (
            {"method": "parallel", "config": SETTINGS, "roles": ["layer.0.ffn"]},
            SiteError,
            r"'c' stands at others than 'a'",
        ),
    ],
)
def test_what_is_not_alike_is_named(load, trained, other, error, message):
    encoder = load()
    trained(encoder, names="ab", config=SETTINGS)
    attach(encoder, name="c", **other)
    with pytest.raises(error, match=message):
        compose(encoder, "mera(a, b, c)")
    assert list(attachments(encoder)) == ["a", "b", "c"]


def test_activations_take_recordings(load, trained):
    encoder = load()
    trained(encoder, names="ab", config=SETTINGS)
    with pytest.raises(ConfigError, match="takes recordings, but none were given"):
        compose(encoder, "mera(a, b, method=acts)")

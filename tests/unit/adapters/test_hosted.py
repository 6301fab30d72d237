from __future__ import annotations

import re

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment
from speechadapt.adapters.hosted import as_host, host_problems, host_shapes, matrices
from speechadapt.adapters.methods.low_bit import LowBitConfig
from speechadapt.adapters.methods.parallel import METHOD, ParallelConfig
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import Site

FFN = Site("layer.0.ffn", "fc1", "fc2", 6, 8, tap="norm")
CONFIGS = {
    "sparse": {"score": "random", "density": 0.4},
    "mosa": {"experts": 2},
    "low_bit": {"bits": 2},
}


@pytest.mark.parametrize(
    ("host", "settings", "problem"),
    [
        ("paralel", {}, "there is no adapter method 'paralel'.* parallel"),
        ("hyperformer", {}, "adapter.host=hyperformer was asked for, whose tensors are shared"),
        ("mosa", {}, "adapter.host=mosa was asked for"),
        ("lora", {"bottleneck": 3}, "there is no setting 'adapter.settings.bottleneck'"),
        ("lora", {"rank": 0}, "adapter.settings.rank must be 1 or more, got 0"),
    ],
)
def test_a_host_that_cannot_be_one_is_refused(host: str, settings, problem: str) -> None:
    (found,) = host_problems(LowBitConfig(host=host, settings=settings))
    assert re.search(problem, found), found


def test_settings_decide_what_a_hosted_method_is() -> None:
    low_bit, lora = method_of("low_bit"), method_of("lora")
    assert not low_bit.merges
    over_lora = low_bit.of(LowBitConfig(host="lora"))
    assert over_lora.merges
    assert over_lora.roles == lora.roles
    assert lora.of(lora.config()) is lora


def test_matrices_are_the_parameters_of_two_dimensions_in_order() -> None:
    adapter = METHOD.adapter(FFN, ParallelConfig(bottleneck=3, input="normed"), None)
    names = ["bottleneck.down.weight", "bottleneck.up.weight"]
    assert list(matrices(adapter)) == names
    shapes = host_shapes(METHOD, ParallelConfig(bottleneck=3, input="normed"), FFN)
    assert {key: tuple(one) for key, one in shapes.items()} == {names[0]: (3, 6), names[1]: (8, 3)}


@pytest.mark.parametrize(
    ("method", "host"), [("sparse", "lora"), ("mosa", "houlsby"), ("low_bit", "parallel")]
)
def test_a_hosted_adapter_becomes_an_ordinary_one(
    method: str, host: str, load, move, frames
) -> None:
    encoder = load()
    settings = {"rank": 3} if host == "lora" else {"bottleneck": 4}
    config = {**CONFIGS[method], "host": host, "settings": settings}
    handle = attach(encoder, method, name="own", config=config, train_norms="adapted")
    move(handle)
    wanted = frames(encoder, "own")
    plain = as_host(handle, "plain")
    assert plain.method_name == host
    torch.testing.assert_close(frames(encoder, "plain"), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="which has no host"):
        as_host(plain, "again")


def test_bottlenecks_are_aligned_after_they_became_ordinary_ones(load) -> None:
    encoder = load()
    for name in ("one", "two"):
        attach(encoder, "low_bit", name=name, config={"settings": {"bottleneck": 3}})
        as_host(attachment(encoder, name), f"plain-{name}")
    with pytest.raises(ConfigError, match=r"Turn it into its host's adapter first"):
        compose(encoder, "mera(one, two)")
    compose(encoder, "mera(plain-one, plain-two)", name="both")
    compose(encoder, "fuse(one, two)", name="fused")

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method
from speechadapt.adapters.handle import AdapterSet, attachment, attachments, base_of
from speechadapt.adapters.spec import Adapter, Method
from speechadapt.core.errors import CatalogError


@dataclass(frozen=True)
class Settings:
    """None."""

    width: int = 3


class Sharing(Adapter):
    """Adds what a module shared by all sites says."""

    def __init__(self, site, config, shared) -> None:
        super().__init__()
        self.shared = shared
        self.own = nn.Parameter(torch.zeros(site.dim_out))

    def leave(self, x: Tensor, y: Tensor, context: object) -> Tensor:
        return y + self.own + self.shared(y)


SHARING = Method(
    config=Settings,
    adapter=Sharing,
    roles=("attn.out",),
    source="https://example.org",
    tiny=Settings(),
    parameters=lambda site, config: site.dim_out,
    shared=lambda sites, config: nn.Linear(32, 32),
    shared_parameters=lambda sites, config: 32 * 33,
    penalty=lambda adapters: torch.stack([one.own.square().sum() for one in adapters]).sum(),
    after_step=lambda adapters, step: [one.own.data.fill_(step) for one in adapters],
    figures=lambda adapters: {"sum": sum(float(one.own.detach().sum()) for one in adapters)},
)


@pytest.fixture
def sharing(load, monkeypatch):
    monkeypatch.setattr("speechadapt.adapters.attach.method_of", lambda name: SHARING)
    return attach(load(), "sharing")


def test_shared_tensors_are_held_once(sharing):
    assert sorted(sharing.module.tensors()) == [
        "layer.0.attn.out:own",
        "layer.1.attn.out:own",
        "shared:bias",
        "shared:weight",
    ]
    assert len(sharing.module.state_dict()) == 4
    assert sharing.num_parameters() == sharing.expected_parameters() == 2 * 32 + 32 * 33
    adapters = sharing.module.adapters()
    assert adapters[0].shared is adapters[1].shared is sharing.module.shared


def test_the_methods_hooks_get_the_adapters(sharing):
    assert float(sharing.penalty().detach()) == 0.0
    sharing.after_step(2)
    assert float(sharing.penalty().detach()) == 2 * 32 * 4


def test_a_method_without_hooks_has_no_penalty(load):
    handle = attach(load(), "lora")
    assert handle.penalty() is None
    handle.after_step(1)


def test_named_parameters_have_the_names_of_the_file(load):
    handle = attach(load(), "pissa", config={"rank": 2}, roles=["attn.q"])
    keys = [key for key, _ in handle.named_parameters()]
    assert keys == [f"layer.{i}.attn.q:{part}" for i in (0, 1) for part in ("down", "up")]
    assert set(keys) < set(handle.module.tensors())  # the frozen start is kept too


def test_a_module_lists_its_adapters_in_the_encoders_order(load):
    encoder = load()
    found = method("lora")
    sites = encoder.select(["ffn.up", "attn.q"])
    module = AdapterSet(sites, [], found, found.tiny)
    assert list(module.by_role()) == [site.role for site in sites]
    assert len(module.adapters()) == 4


def test_attachments_are_found_by_name(load):
    encoder = load()
    assert attachments(encoder) == {}
    handle = attach(encoder, "lora", name="german")
    assert attachments(encoder) == {"german": handle}
    assert attachment(encoder, "german") is handle
    with pytest.raises(CatalogError, match=r"'germen' is attached\. Did you mean german"):
        attachment(encoder, "germen")


def test_a_base_is_described_without_paths(load):
    encoder = load()
    base = base_of(encoder)
    assert base["name"] == "whisper"
    assert base["dtype"] == "float32"
    assert base["files"] == encoder.source.fingerprint
    encoder.source = replace(encoder.source, name="someone/model", revision="abc")
    assert base_of(encoder)["name"] == "someone/model"
    encoder.source = None
    assert base_of(encoder) | {"name": 1} == base | {"name": 1, "revision": None, "files": None}


def test_what_a_method_finds_worth_knowing_is_told_by_name(sharing):
    sharing.after_step(3)
    assert sharing.figures() == {"sum": 2 * 32 * 3.0}
    assert replace(sharing, method=replace(SHARING, figures=None)).figures() == {}

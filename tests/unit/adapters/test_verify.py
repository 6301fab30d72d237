from __future__ import annotations

import pytest
import torch
from torch import nn

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.handle import router_of
from speechadapt.adapters.merge import merge
from speechadapt.adapters.verify import verify
from speechadapt.core.errors import CatalogError, ConfigError


def test_a_trained_adapter_acts_and_is_gone_when_off(load, clips, move):
    encoder = load()
    handle = attach(encoder, "lora", name="german", train_norms="adapted")
    move(handle)
    report = verify(encoder, "german", clips)
    assert report.sound
    assert report.acts
    with torch.no_grad():
        on, lengths = encoder.encode(clips)
        with active(encoder, None):
            off, _ = encoder.encode(clips)
    valid = torch.arange(on.shape[1])[None] < lengths[:, None]
    assert report.changed == pytest.approx(float((on - off).abs()[valid].max()))
    assert report.parameters == handle.num_parameters()
    assert "stands at 16 sites" in str(report)
    assert "equals the base bit for bit" in str(report)


def test_a_bridge_to_another_width_acts_and_is_gone_when_off(load, clips):
    encoder = load("w2v_bert")
    attach(encoder, "pea_bridge", config={"hidden": 8, "dim": 5, "repeat": 3})
    report = verify(encoder, "pea_bridge", clips)
    assert report.sound
    assert report.acts
    assert report.off_equals_base


def test_an_adapter_at_its_start_is_said_to_be(load):
    encoder = load()
    attach(encoder, "lora")
    report = verify(encoder, "lora")
    assert report.sound
    assert not report.acts
    assert "nothing changes; it is at its start" in str(report)


def test_an_adapter_that_never_runs_is_named(load, clips, move):
    encoder = load()
    move(attach(encoder, "lora"))
    encoder.model.layers[1].fc1 = nn.Linear(32, 48)  # whoever swaps a module swaps the hooks away
    report = verify(encoder, "lora", clips)
    assert report.silent == ("layer.1.ffn.up",)
    assert not report.sound
    assert "Never ran: layer.1.ffn.up" in str(report)


def test_an_adapter_that_does_not_go_off_is_found(load, clips, move, monkeypatch):
    encoder = load()
    move(attach(encoder, "lora"))
    router = router_of(encoder)
    kept = router.grouped(None)

    def begin(self, encoder, *batch):
        self.groups = kept
        return batch

    monkeypatch.setattr(type(router), "begin", begin)
    report = verify(encoder, "lora", clips)
    assert not report.off_equals_base
    assert not report.sound
    assert "DIFFERS FROM" in str(report)


def test_numbers_that_are_none_are_found(load, clips):
    encoder = load()
    handle = attach(encoder, "lora")
    with torch.no_grad():
        next(handle.parameters()).fill_(float("nan"))
    report = verify(encoder, "lora", clips)
    assert not report.finite
    assert not report.sound
    assert "holds NaN" in str(report)


def test_verifying_leaves_everything_as_it_was(load, clips, move):
    encoder = load()
    handle = attach(encoder, "lora", config={"dropout": 0.5})
    move(handle)
    encoder.train()
    hooks = sum(len(one._forward_hooks) for one in encoder.modules())
    first, second = (verify(encoder, "lora", clips) for _ in range(2))
    assert first == second
    assert encoder.model.training
    assert handle.module.training
    assert sum(len(one._forward_hooks) for one in encoder.modules()) == hooks


def test_a_merged_adapter_cannot_be_switched_off(load):
    encoder = load()
    attach(encoder, "lora")
    merge(encoder, "lora")
    with pytest.raises(ConfigError, match="lora is merged into the weights"):
        verify(encoder, "lora")
    remove(encoder, "lora")
    with pytest.raises(CatalogError, match="no adapter called 'lora'"):
        verify(encoder, "lora")

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from speechadapt.adapters.attach import active, attach, build, choose_sites, install, remove, use
from speechadapt.adapters.handle import attachments
from speechadapt.adapters.methods.lora import LoraConfig
from speechadapt.core.errors import CatalogError, ConfigError, ShapeError, SiteError


@torch.no_grad()
def frames(encoder, clips) -> Tensor:
    return encoder.encode(clips)[0]


def untouched(encoder) -> bool:
    hooks = [one for one in encoder.modules() if one._forward_hooks or one._forward_pre_hooks]
    return not hooks and not encoder.followers and not attachments(encoder)


def test_attaching_freezes_the_base_and_reports_the_sites_it_hit(load):
    encoder = load()
    handle = attach(encoder, "lora", name="german", roles=["attn.q", "layer.1.ffn.up"])
    hit = [site.role for site in handle.sites]
    assert hit == ["layer.0.attn.q", "layer.1.attn.q", "layer.1.ffn.up"]
    assert not any(one.requires_grad for one in encoder.model.parameters())
    assert all(one.requires_grad for one in handle.parameters())


def test_the_encoders_state_keeps_its_keys(load):
    encoder = load()
    before = list(encoder.state_dict())
    attach(encoder, "lora")
    assert list(encoder.state_dict()) == before


def test_a_pattern_with_a_question_mark_may_match_nothing(load):
    encoder = load()
    assert choose_sites(encoder, ["attn.q", "conv.pw1?"]) == choose_sites(encoder, ["attn.q"])
    with pytest.raises(SiteError, match=r"whisper has none of them"):
        choose_sites(encoder, ["conv.pw1?"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"roles": ["attn.qq"]}, SiteError, r"no site has the role 'attn\.qq'\. Did you mean"),
        ({"config": {"rank": 33}}, ConfigError, r"adapter\.rank must be between 1 and 32 .*got 33"),
        ({"config": LoraConfig(rank=0)}, ConfigError, r"adapter\.rank must be 1 or more, got 0"),
        ({"config": {"rnak": 2}}, ConfigError, r"no setting 'adapter\.rnak'. Did you mean rank"),
        ({"config": 3}, ConfigError, r"takes a LoraConfig, got a int"),
        ({"roles": ["ffn"]}, SiteError, r"is a span from"),
        ({"name": "a b"}, ConfigError, r"was to be called 'a b'"),
        ({"train_norms": "some"}, ConfigError, r"train_norms 'some' was asked for"),
        ({"roles": ["stem.conv.*"], "train_norms": "adapted"}, SiteError, r"no norm feeds"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(load, options, error, message):
    encoder = load()
    with pytest.raises(error, match=message):
        attach(encoder, "lora", **options)
    assert untouched(encoder)


def test_an_unknown_method_names_near_misses(load):
    with pytest.raises(CatalogError, match=r"no adapter method 'loro'. Did you mean lora"):
        attach(load(), "loro")


def test_tapping_where_no_norm_stands_is_refused(load):
    encoder = load()
    with pytest.raises(SiteError, match="no norm there"):
        attach(encoder, "parallel", roles=["end"], config={"input": "residual"})
    assert untouched(encoder)


def test_a_name_is_given_once(load):
    encoder = load()
    attach(encoder, "lora")
    with pytest.raises(ConfigError, match="has an adapter called 'lora' already"):
        attach(encoder, "lora")
    with pytest.raises(CatalogError, match=r"no adapter called 'lorra' is attached\. Did you"):
        remove(encoder, "lorra")


def test_what_was_attached_last_acts_until_told_otherwise(load, clips, move):
    encoder = load()
    base = frames(encoder, clips)
    for name in ("first", "second"):
        move(attach(encoder, "lora", name=name))
    second = frames(encoder, clips)
    with active(encoder, "second"):
        assert torch.equal(frames(encoder, clips), second)
    with active(encoder, None):
        assert torch.equal(frames(encoder, clips), base)
    move(attach(encoder, "lora", name="third", activate=False))
    assert torch.equal(frames(encoder, clips), second)
    use(encoder, None)
    assert torch.equal(frames(encoder, clips), base)
    remove(encoder, "second")
    assert torch.equal(frames(encoder, clips), base)


def test_a_selection_ends_with_its_block_even_by_an_error(load, clips, move):
    encoder = load()
    move(attach(encoder, "lora"))
    on = frames(encoder, clips)
    with pytest.raises(ShapeError, match="selected for 1 rows"), active(encoder, ["lora"]):
        frames(encoder, clips)
    assert torch.equal(frames(encoder, clips), on)
    with pytest.raises(CatalogError, match="no adapter called 'x'"), active(encoder, ["x"]):
        pass


def test_without_attachments_only_none_can_be_chosen(load, clips):
    encoder = load()
    with active(encoder, None), active(encoder, [None, None]):
        frames(encoder, clips)
    with pytest.raises(CatalogError, match="no adapter called 'german'"), active(encoder, "german"):
        pass


def test_adapters_follow_the_encoder_to_another_precision_and_mode(load, clips, move):
    encoder = load()
    handle = attach(encoder, "lora")
    move(handle)
    assert not handle.module.training  # as the frozen encoder
    encoder.train()
    assert handle.module.training
    encoder.freeze()
    assert handle.module.training  # freezing is about the base
    encoder.eval()
    assert not handle.module.training
    encoder.to(torch.bfloat16)
    assert {one.dtype for one in handle.parameters()} == {torch.bfloat16}
    assert frames(encoder, clips).dtype == torch.bfloat16


def test_adapters_can_have_a_precision_of_their_own(load, clips):
    encoder = load(dtype="bfloat16")
    assert next(attach(encoder, "lora").parameters()).dtype == torch.bfloat16
    handle = attach(encoder, "lora", name="exact", dtype=torch.float32)
    assert next(handle.parameters()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(frames(encoder, clips).isfinite().all())


def test_a_copy_of_an_encoder_has_adapters_of_its_own(load, clips, move):
    encoder = load()
    handle = attach(encoder, "lora")
    twin = copy.deepcopy(encoder)
    base = frames(encoder, clips)
    move(handle)
    assert torch.equal(frames(twin, clips), base)
    assert not torch.equal(frames(encoder, clips), base)
    remove(twin, "lora")
    assert untouched(twin)
    assert not untouched(encoder)


def test_building_alone_touches_nothing(load, clips, move):
    encoder = load()
    handle = build(encoder, "lora")
    move(handle)
    assert untouched(encoder)
    base = frames(encoder, clips)
    install(handle)
    assert not torch.equal(frames(encoder, clips), base)


def test_an_attachment_is_installed_once(load):
    encoder = load()
    handle = attach(encoder, "lora")
    with pytest.raises(ConfigError, match="called 'lora' already"):
        install(handle)
    assert len(encoder.followers) == 1
    install(remove(encoder, "lora"))
    assert attachments(encoder) == {"lora": handle}


def test_adapters_train_under_distributed_data_parallel(load, clips, tmp_path):
    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = load("w2v_bert")
            self.adapters = attach(self.encoder, "lora", config=LoraConfig(rank=2)).module

        def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
            return self.encoder(features, lengths)[0].square().mean()

    torch.manual_seed(0)
    task = Task()
    batch = task.encoder.extract(clips)
    task(*batch).backward()
    alone = [one.grad.clone() for one in task.adapters.parameters()]
    task.zero_grad()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(task)
        parallel(*batch).backward()
    finally:
        torch.distributed.destroy_process_group()
    for parameter, gradient in zip(task.adapters.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)

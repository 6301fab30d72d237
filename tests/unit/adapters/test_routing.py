from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.handle import router_of
from speechadapt.adapters.routing import Selection
from speechadapt.adapters.spec import Adapter
from speechadapt.core.errors import ConfigError, ShapeError


class Shift(Adapter):
    """Adds one number to whatever the site writes."""

    def leave(self, x: Tensor, y: Tensor, context: object) -> Tensor:
        return y + 3.0


class Twice(Adapter):
    """Doubles whatever the site writes."""

    def leave(self, x: Tensor, y: Tensor, context: object) -> Tensor:
        return 2 * y


@torch.no_grad()
def frames(encoder, clips, names) -> Tensor:
    with active(encoder, names):
        return encoder.encode(clips)[0]


def two(encoder, move) -> None:
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        move(attach(encoder, "lora", name=name, config={"rank": 2}, train_norms="all"))


def test_rows_have_adapters_of_their_own(load, clips, move):
    encoder = load("w2v_bert")
    two(encoder, move)
    whole = {name: frames(encoder, clips, name) for name in ("first", "second", None)}
    mixed = frames(encoder, clips, ["second", None, "first"])
    for row, name in enumerate(("second", None, "first")):
        torch.testing.assert_close(mixed[row], whole[name][row], rtol=0, atol=1e-5)
    assert not torch.allclose(whole["first"], whole["second"], atol=1e-3)


def test_a_tuple_of_names_acts_one_after_the_other(load, clips, move):
    encoder = load()
    two(encoder, move)
    both = frames(encoder, clips, ("first", "second"))
    rows = frames(encoder, clips, [("first", "second"), "first", None])
    torch.testing.assert_close(rows[0], both[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(rows[1], frames(encoder, clips, "first")[1], rtol=0, atol=1e-5)
    assert not torch.allclose(both, frames(encoder, clips, "first"), atol=1e-3)
    assert not torch.allclose(both, frames(encoder, clips, "second"), atol=1e-3)


def test_the_order_in_a_tuple_is_the_order_of_acting(load, clips):
    encoder = load()
    for name in ("first", "second"):
        attach(encoder, "lora", name=name, roles=["layer.0.attn.q"])
    router_of(encoder).stations["layer.0.attn.q"].adapters = {"first": Shift(), "second": Twice()}
    written: list[Tensor] = []
    query = encoder.model.layers[0].self_attn.q_proj
    query.register_forward_hook(lambda module, args, output: written.append(output))
    for names in (None, ("first", "second"), ("second", "first")):
        frames(encoder, clips, names)
    frames(encoder, clips, [("first", "second"), None, ("second", "first")])
    base, one, other, mixed = written
    torch.testing.assert_close(one, 2 * (base + 3))
    torch.testing.assert_close(other, 2 * base + 3)
    assert torch.equal(mixed, torch.stack([one[0], base[1], other[2]]))


def test_one_row_for_all_copies_nothing(load, clips, move, monkeypatch):
    encoder = load()
    move(attach(encoder, "lora", name="first"))
    features = encoder.extract(clips)

    def refuse(*args: object) -> None:
        raise AssertionError("rows were copied")

    monkeypatch.setattr(torch.Tensor, "index_select", refuse)
    for names in ("first", None, ["first", "first", "first"], [None, None, None]):
        with torch.no_grad(), active(encoder, names):
            encoder(*features)


def test_a_selection_of_another_size_is_refused_with_both_numbers(load, clips):
    encoder = load()
    attach(encoder, "lora", name="first")
    with pytest.raises(ShapeError, match="selected for 2 rows, but the batch has 3"):
        frames(encoder, clips, ["first", None])


def test_an_adapter_gets_the_mask_of_the_residual_stream(load, clips, monkeypatch):
    seen = {}
    for family, options in (
        ("w2v_bert", {}),
        ("whisper", {}),
        ("whisper", {"padding": "full"}),
        ("ast", {}),
    ):
        encoder = load(family, **options)
        attach(encoder, "lora", name="first", roles=["layer.0.attn.q"])
        adapter = router_of(encoder).stations["layer.0.attn.q"].adapters["first"]
        got: list = []
        monkeypatch.setattr(
            type(adapter),
            "leave",
            lambda self, x, y, context, got=got: (got.append((y, context)), y)[1],
        )
        _, lengths = encoder.encode(clips)
        rows, context = got[0]
        seen[family, options.get("padding", "native")] = context.mask
        if context.mask is not None:
            assert context.mask.shape == rows.shape[:2]
            assert torch.equal(context.mask.sum(1), lengths)
        with active(encoder, [None, "first", None]):
            encoder.encode(clips)
        rows, context = got[1]
        assert rows.shape[0] == 1
        if context.mask is not None:
            assert torch.equal(context.mask.sum(1), lengths[1:2])
    assert [key for key, mask in seen.items() if mask is None] == [
        ("whisper", "full"),
        ("ast", "native"),
    ]


def test_an_adapter_stands_outside_of_the_factor_of_a_half(load, clips):
    """What it adds meets the residual stream in full."""
    encoder = load("w2v_bert")
    stream: list[Tensor] = []
    norm = encoder.model.encoder.layers[0].self_attn_layer_norm
    norm.register_forward_pre_hook(lambda module, args: stream.append(args[0]))
    attach(encoder, "parallel", name="first", roles=["layer.0.ffn1"])
    with torch.no_grad():
        encoder.encode(clips)
        router_of(encoder).stations["layer.0.ffn1"].adapters["first"] = Shift()
        encoder.encode(clips)
    torch.testing.assert_close(stream[1], stream[0] + 3.0, rtol=0, atol=1e-5)


def test_the_end_of_a_conformer_layer_lies_before_its_closing_norm(load, clips):
    encoder = load("w2v_bert")
    closing: list[Tensor] = []
    layer = encoder.model.encoder.layers[0]
    attach(encoder, "parallel", name="first", roles=["layer.0.end"], config={"input": "normed"})
    router_of(encoder).stations["layer.0.end"].adapters["first"] = Shift()
    layer.final_layer_norm.register_forward_pre_hook(lambda m, args: closing.append(args[0]))
    with torch.no_grad():
        encoder.encode(clips)
        with active(encoder, None):
            encoder.encode(clips)
    torch.testing.assert_close(closing[0], closing[1] + 3.0, rtol=0, atol=1e-5)


class Tap(Adapter):
    """Keeps what it reads."""

    taps = True

    def leave(self, x: Tensor, y: Tensor, context: object) -> Tensor:
        self.got = x
        return y


@pytest.mark.parametrize("role", ["attn", "ffn"])
def test_a_tap_reads_the_residual_stream_before_the_norm(load, clips, role):
    encoder = load()
    attach(encoder, "parallel", name="first", roles=[f"layer.1.{role}"])
    tap = Tap()
    router_of(encoder).stations[f"layer.1.{role}"].adapters["first"] = tap
    stream: list[Tensor] = []
    path = encoder.site(f"layer.1.{role}").tap
    encoder.model.get_submodule(path).register_forward_pre_hook(
        lambda module, args: stream.append(args[0])
    )
    with torch.no_grad():
        encoder.encode(clips)
    assert torch.equal(tap.got, stream[0])


class Double(Adapter):
    """Doubles what goes in, and keeps it to see it again."""

    def enter(self, x: Tensor, context: object) -> Tensor:
        return 2 * x

    def leave(self, x: Tensor, y: Tensor, context: object) -> Tensor:
        self.got = x
        return y


def test_what_enters_a_span_is_what_leaves_it(load, clips):
    encoder = load()
    attach(encoder, "parallel", name="first", roles=["layer.0.ffn"])
    double = Double()
    router = router_of(encoder)
    router.stations["layer.0.ffn"].adapters["first"] = double
    inside: list[Tensor] = []
    encoder.model.layers[0].fc1.register_forward_hook(lambda m, args, out: inside.append(args[0]))
    with torch.no_grad():
        encoder.encode(clips)
        with active(encoder, [None, "first", None]):
            encoder.encode(clips)
        with active(encoder, None):
            encoder.encode(clips)
    assert torch.equal(inside[0], 2 * inside[2])
    assert torch.equal(inside[1][1], 2 * inside[2][1])
    assert torch.equal(inside[1][0], inside[2][0])
    assert torch.equal(double.got[0], inside[1][1])


def test_a_condition_that_is_needed_must_be_given(load, clips):
    encoder = load()
    attach(encoder, "lora", name="first")
    router = router_of(encoder)
    router.needs["first"] = frozenset({"task"})
    with pytest.raises(ConfigError, match="adapter 'first' needs the condition 'task'"):
        encoder.encode(clips)
    with active(encoder, "first", {"task": [0, 1, 2]}):
        encoder.encode(clips)


def test_a_forgotten_name_leaves_the_other_rows_theirs(load):
    encoder = load()
    for name in ("first", "second"):
        attach(encoder, "lora", name=name)
    with active(encoder, ["first", ("second", "first")]):
        remove(encoder, "first")
        assert router_of(encoder).selection == Selection(((), ("second",)), False)

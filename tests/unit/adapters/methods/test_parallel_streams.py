"""Parallel streams: the formula, the streams as rows of a batch, one stream as the base."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.handle import router_of
from speechadapt.core.errors import ConfigError, SiteError

ROLES = ["attn", "attn.k", "attn.v", "encoder"]
SMALL = {"streams": 2, "prefix": 3}
FAMILIES = [("whisper", "native"), ("whisper", "full"), ("w2v_bert", "native"), ("ast", "native")]


def put(encoder, move, name: str = "wide", **config: int):
    torch.manual_seed(0)
    handle = attach(encoder, "parallel_streams", name=name, config=SMALL | config)
    move(handle, 0.5)
    return handle


def attention_by_hand(layer, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend within one clip of Whisper, behind a prefix, head by head."""
    attention = layer.self_attn
    width = attention.head_dim
    query = attention.q_proj(x)
    key = torch.cat([keys, attention.k_proj(x)])
    value = torch.cat([values, attention.v_proj(x)])
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / width**0.5
        heads.append(scores.softmax(-1) @ value[:, part])
    return attention.out_proj(torch.cat(heads, -1))


def rotary_by_hand(attention, x: Tensor, turns: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend within one clip of a Conformer, behind a prefix that is not turned."""
    turned = attention._apply_rotary_embedding(x, turns)[0]
    shape = (attention.num_heads, attention.head_size)
    query = attention.linear_q(turned).unflatten(-1, shape)
    key = torch.cat([keys, attention.linear_k(turned)]).unflatten(-1, shape)
    value = torch.cat([values, attention.linear_v(x[0])]).unflatten(-1, shape)
    scores = torch.einsum("qhd,khd->hqk", query, key) / attention.head_size**0.5
    return attention.linear_out(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1))


@torch.no_grad()
def test_a_stream_attends_to_its_prefix_and_the_frames_in_one_softmax(load, clips, move) -> None:
    encoder = load("whisper", padding="full")
    adapters = put(encoder, move).module.by_role()
    layer = encoder.model.layers[1]
    seen: list[Tensor] = []
    layer.self_attn_layer_norm.register_forward_hook(lambda module, args, y: seen.append(y))
    layer.self_attn.register_forward_hook(lambda module, args, y: seen.append(y[0]))
    encoder.encode(clips)
    x, found = seen
    assert len(x) == 2 * len(clips)
    for row in range(len(x)):
        learned = (adapters[f"layer.1.attn.{one}"].learned[row % 2] for one in "kv")
        with active(encoder, None):
            expected = attention_by_hand(layer, x[row], *learned)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_rotary_attention_turns_the_frames_and_not_the_prefix(rotary, clips, move) -> None:
    """Clip by clip, so that padding must not be seen."""
    encoder = rotary()
    adapters = put(encoder, move).module.by_role()
    layer = encoder.model.encoder.layers[0]
    seen: list[Tensor] = []
    layer.self_attn_layer_norm.register_forward_hook(lambda module, args, y: seen.append(y))
    layer.self_attn.register_forward_hook(lambda module, args, y: seen.append(y[0]))
    lengths = encoder.encode(clips)[1].tolist()
    x, found = seen
    turns = encoder.model.encoder.embed_positions(x)
    for row, length in enumerate(n for n in lengths for _ in range(2)):
        learned = (adapters[f"layer.0.attn.{one}"].learned[row % 2] for one in "kv")
        with active(encoder, None):
            expected = rotary_by_hand(
                layer.self_attn, x[row : row + 1, :length], turns[:, :length], *learned
            )
        torch.testing.assert_close(found[row, :length], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("family", "padding"), FAMILIES)
def test_the_output_is_the_mean_of_streams_that_ran_alone(family, padding, load, clips, move):
    """Each stream alone: an encoder whose streams all have its prefix."""
    encoder = load(family, padding=padding)
    handle = put(encoder, move)
    whole, lengths = encoder.encode(clips)
    adapters = handle.module.by_role()
    learned = [
        one.learned for one in adapters.values() if getattr(one, "learned", None) is not None
    ]
    own = [one.clone() for one in learned]
    closing = encoder.model.get_submodule(encoder.sites["encoder"].write)
    closed: list[Tensor] = []
    hook = closing.register_forward_hook(lambda module, args, y: closed.append(y), prepend=True)
    for stream in range(2):
        for here, kept in zip(learned, own, strict=True):
            here.copy_(kept[stream].expand_as(here))
        encoder.encode(clips)
    hook.remove()
    alone = torch.stack([one[::2] for one in closed], dim=1)
    joined = adapters["encoder"].mixer(alone)
    if family == "ast":
        joined = joined[:, 2:].unflatten(1, encoder.grid).mean(1)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(whole[row, :length], joined[row, :length], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone[:, 0], alone[:, 1], atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize(("family", "padding"), FAMILIES)
def test_one_stream_is_the_base_bit_for_bit(family, padding, load, clips, tmp_path) -> None:
    encoder = load(family, padding=padding)
    base, _ = encoder.encode(clips)
    handle = attach(encoder, "parallel_streams", config={"streams": 1})
    assert torch.equal(encoder.encode(clips)[0], base)
    assert handle.num_parameters() == handle.expected_parameters() == 0
    assert handle.method.starts_as_identity
    store.save(handle, tmp_path / "one")
    remove(encoder, "parallel_streams")
    store.load(encoder, tmp_path / "one", name="again")
    assert torch.equal(encoder.encode(clips)[0], base)


@torch.no_grad()
def test_rows_of_other_streams_and_of_none_stand_in_one_batch(load, clips, move, frames) -> None:
    encoder = load("w2v_bert")
    put(encoder, move, "two")
    put(encoder, move, "four", streams=4)
    whole = {name: frames(encoder, name) for name in ("two", "four", None)}
    mixed = frames(encoder, ["four", None, "two"])
    lengths = encoder.encode(clips)[1].tolist()
    for row, name in enumerate(("four", None, "two")):
        valid = slice(lengths[row])
        torch.testing.assert_close(mixed[row, valid], whole[name][row, valid], rtol=1e-4, atol=1e-4)
    assert torch.equal(mixed[1], whole[None][1])
    assert router_of(encoder).selection.rows == (("four",),)  # the last attached, as before


@torch.no_grad()
def test_streams_go_through_the_adapters_beside_them(load, clips, move, frames) -> None:
    encoder = load()
    put(encoder, move)
    move(attach(encoder, "lora"), 0.2)
    both = frames(encoder, ("lora", "wide"))
    rows = frames(encoder, [("lora", "wide"), None, "lora"])
    torch.testing.assert_close(rows[0], both[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[2], frames(encoder, "lora")[2], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0], frames(encoder, "wide")[0], atol=1e-2)
    put(encoder, move, "more")
    with pytest.raises(ConfigError, match="'wide' and 'more' were both to make streams"):
        frames(encoder, ("wide", "more"))


@torch.no_grad()
def test_every_stream_of_a_row_is_told_what_the_row_is_told(load, clips, move) -> None:
    encoder = load()
    put(encoder, move)
    move(attach(encoder, "cross_attention", config={"width": 8, "heads": 2, "tokens": 4}), 0.3)
    memories = [torch.randn(5, encoder.dim), None, torch.randn(3, encoder.dim)]

    def run(names: object, told: list[Tensor | None]) -> Tensor:
        with active(encoder, names, {"memory": told}):
            return encoder.encode(clips)[0]

    whole = run(("cross_attention", "wide"), memories)
    other = run(("cross_attention", "wide"), [memories[2], *memories[1:]])
    assert not torch.allclose(whole[0], other[0], atol=1e-3)
    torch.testing.assert_close(whole[1:], other[1:])


@torch.no_grad()
def test_the_model_without_its_encoder_has_no_streams(load, clips, move) -> None:
    encoder = load("w2v_bert")
    put(encoder, move)
    features, _ = encoder.extract(clips[:1])
    with pytest.raises(ConfigError, match=r"2 streams of every row, but the batch holds 1: .*Call"):
        encoder.model(input_features=features)
    with active(encoder, None):
        encoder.model(input_features=features)


def test_half_an_attention_is_refused(load) -> None:
    encoder = load()
    for roles, missing in (
        (["attn", "attn.k", "attn.v"], "encoder"),
        (["attn", "attn.k", "encoder"], "layer.0.attn.v"),
        (["layer.1.attn.*", "encoder"], "layer.1.attn"),
        (["encoder"], "attn"),
    ):
        with pytest.raises(SiteError, match=rf"'{missing}' is not among the chosen roles"):
            attach(encoder, "parallel_streams", roles=roles)
    with pytest.raises(SiteError, match=r"but 'layer.0.attn.q' is a Linear"):
        attach(encoder, "parallel_streams", roles=[*ROLES, "attn.q"])
    assert attach(
        encoder, "parallel_streams", roles=["layer.1.attn", "layer.1.attn.[kv]", "encoder"]
    ).sites


def test_no_parameter_is_forgotten_in_the_count(load) -> None:
    handle = attach(load(), "parallel_streams", config={"streams": 4, "prefix": 5})
    learned = 2 * 2 * 4 * 5 * 32  # layers, keys and values, streams, prefix, width
    assert handle.num_parameters() == learned + 4 * 32 * 32 + 32 + 4 * 32 + 4
    assert handle.expected_parameters() == handle.num_parameters()

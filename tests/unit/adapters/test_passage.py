from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.passage import Passage, check_part, joined
from speechadapt.adapters.spec import Adapter
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import Part

FRAMES = torch.tensor([[0, 3, 4], [1, 2, 0]])
USED = torch.tensor([[True, True, True], [True, True, False]])


class Sends(Adapter):
    """Sends fixed frames through a site."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self.passage = passage

    def around(self, x, context):
        return self.passage


@pytest.fixture
def sending(load):
    """Attach an adapter that sends chosen frames through the attention or the feed-forward."""

    def make(passage: Passage, role: str, family: str = "whisper", **options: str):
        encoder = load(family, **options)
        attach(encoder, "coda", name="one", roles=[role], config={"share": 0.5})
        station = encoder.attached.stations[role]
        station.adapters["one"] = Sends(passage)
        return encoder

    return make


def test_what_is_gathered_is_put_back_at_its_frame():
    states = torch.arange(20.0).reshape(2, 5, 2)
    passage = Passage(FRAMES, USED)
    slots = passage.gather(states)
    assert slots[0].tolist() == states[0, [0, 3, 4]].tolist()
    back = passage.put_back(slots, 5)
    assert back[0, [0, 3, 4]].tolist() == states[0, [0, 3, 4]].tolist()
    assert back[1, [1, 2]].tolist() == states[1, [1, 2]].tolist()
    assert not bool(back[0, [1, 2]].any())
    assert not bool(back[1, [0, 3, 4]].any())


def test_weights_multiply_what_is_put_back_and_get_gradients():
    weights = torch.full((2, 3), 0.5, requires_grad=True)
    back = Passage(FRAMES, USED, weights).put_back(torch.ones(2, 3, 2), 5)
    assert back[0, 0].tolist() == [0.5, 0.5]
    back.sum().backward()
    assert weights.grad.tolist() == [[2, 2, 2], [2, 2, 0]]


def test_rows_that_choose_nothing_send_all_their_frames():
    whole = joined([(torch.tensor([1]), Passage(FRAMES[1:], USED[1:]))], rows=2, count=5)
    states = torch.randn(2, 5, 3)
    back = whole.put_back(whole.gather(states), 5)
    assert torch.equal(back[0], states[0])
    assert torch.equal(back[1, [1, 2]], states[1, [1, 2]])
    assert not bool(back[1, [0, 3, 4]].any())


def test_rows_that_all_choose_have_no_more_slots_than_the_most():
    pairs = [
        (torch.tensor([0]), Passage(FRAMES[:1, :2])),
        (torch.tensor([1]), Passage(FRAMES[1:], USED[1:])),
    ]
    both = joined(pairs, rows=2, count=5)
    assert both.frames.shape == (2, 3)
    assert both.used.tolist() == [[True, True, False], [True, True, False]]
    assert both.weights.tolist() == [[1, 1, 0], [1, 1, 0]]


def test_rows_of_one_batch_attend_to_the_same_keys():
    pairs = [
        (torch.tensor([0]), Passage(FRAMES[:1])),
        (torch.tensor([1]), Passage(FRAMES[1:], keys="all")),
    ]
    with pytest.raises(ConfigError, match="Put them into batches of their own"):
        joined(pairs, rows=2, count=5)


def mask_of(kind: str) -> torch.Tensor | None:
    keep = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    keep[1, ..., 4] = False
    keep[0, 0, 3, 0] = False
    lowest = torch.finfo(torch.float32).min
    return keep if kind == "bool" else torch.zeros(2, 1, 5, 5).masked_fill(~keep, lowest)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_is_cut_to_its_queries_and_keys(kind):
    passage, states = Passage(FRAMES, USED), torch.zeros(2, 5, 4)
    part, mask = Part("attention_mask"), mask_of(kind)
    _, named = passage.arguments(part, states, (), {"attention_mask": mask})
    given, _ = passage.arguments(part, states, (states, mask), {})
    cut = named["attention_mask"]
    assert torch.equal(given[1], cut)
    seen = cut if kind == "bool" else cut == 0
    assert seen[0, 0].tolist() == [[True, True, True], [False, True, True], [True, True, True]]
    assert seen[1, 0].tolist() == [[True, True, False]] * 3


def test_all_keys_stay_where_they_are_asked_for():
    passage, states = Passage(FRAMES, USED, keys="all"), torch.randn(2, 5, 4)
    part = Part("attention_mask", keys="others")
    _, named = passage.arguments(part, states, (), {"attention_mask": mask_of("bool")})
    assert named["others"] is states
    assert named["attention_mask"].shape == (2, 1, 3, 5)
    assert named["attention_mask"][0, 0, 1].tolist() == [False, True, True, True, True]


def test_without_a_mask_unused_slots_alone_make_one():
    states, part = torch.zeros(2, 5, 4), Part("attention_mask")
    assert Passage(FRAMES).arguments(part, states, (), {})[1]["attention_mask"] is None
    made = Passage(FRAMES, USED).arguments(part, states, (), {})[1]["attention_mask"]
    assert (made == 0).tolist() == [[[[True, True, True]]], [[[True, True, False]]]]


@pytest.mark.parametrize(
    ("family", "role"),
    [
        ("whisper", "attn"),
        ("whisper", "ffn"),
        ("ast", "attn"),
        ("ast", "ffn"),
        ("w2v_bert", "ffn1"),
    ],
)
def test_all_frames_in_any_order_are_the_base(sending, clips, family, role):
    """What the site table claims: sent through shuffled and put back, nothing has changed."""
    base = sending(Passage(torch.zeros(3, 1).long()), f"layer.1.{role}", family)
    features, lengths = base.extract(clips)
    with torch.no_grad(), active(base, None):
        wanted, valid = base(features, lengths)
        count = 0

        def look(module, args, output):
            nonlocal count
            count = output.shape[1]

        hook = base.model.get_submodule(base.sites["layer.0.end"].read).register_forward_hook(look)
        base(features, lengths)
        hook.remove()
        order = torch.stack([torch.randperm(count) for _ in range(3)])
        encoder = sending(Passage(order), f"layer.1.{role}", family)
        with active(encoder, "one"):
            found, _ = encoder(features, lengths)
    for row, length in enumerate(valid.tolist()):
        torch.testing.assert_close(found[row, :length], wanted[row, :length], rtol=1e-4, atol=1e-4)


def test_frames_meet_by_their_places_elsewhere(load):
    encoder = load("w2v_bert")
    with pytest.raises(SiteError, match=r"frames meet by their places. Choose roles such as ffn"):
        check_part(encoder.site("layer.0.conv"), "coda")
    with pytest.raises(SiteError, match="frames meet by their places"):
        check_part(encoder.site("layer.0.attn"), "coda")
    with pytest.raises(SiteError, match="takes its keys from the frames that ask"):
        check_part(load("ast").site("layer.0.attn"), "coda", "all")
    check_part(load("whisper").site("layer.0.attn"), "coda", "all")

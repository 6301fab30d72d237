from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from speechadapt.core.errors import ShapeError
from speechadapt.decoders.masked_diffusion.network import CrossAttention, DiffusionNetwork
from speechadapt.decoders.masked_diffusion.rotary import rotary
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary

SHAPE = DiffusionShape(
    vocab_size=11, dim=16, layers=2, heads=2, feed_forward=24, positions=12, condition_dim=10
)
Made = Callable[..., DiffusionNetwork]


@pytest.fixture
def made() -> Made:
    def make(**changes: object) -> DiffusionNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return DiffusionNetwork(replace(SHAPE, **changes)).eval()

    return make


@pytest.fixture(scope="module")
def open_gates() -> DiffusionNetwork:
    return tiny_network(tiny_vocabulary(), 10)


def tokens(*shape: int, seed: int = 0, most: int = 11) -> Tensor:
    return torch.randint(most + 1, shape, generator=torch.Generator().manual_seed(seed))


def frames(rows: int, count: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, count, 10, generator=torch.Generator().manual_seed(seed))


def test_a_new_network_with_audio_equals_the_text_network_bit_for_bit(made: Made) -> None:
    hearing, text = made(), made(condition_dim=0, length_head=False)
    own = text.state_dict()
    text.load_state_dict({name: hearing.state_dict()[name] for name in own})
    asked = tokens(2, 3, 8)
    heard = hearing.condition(frames(2, 7), torch.tensor([7, 4]))
    with torch.no_grad():
        assert torch.equal(hearing(asked, None, heard), text(asked))


def test_without_the_gate_a_new_network_is_disturbed_by_the_frames(made: Made) -> None:
    network = made(gate="none")
    asked = tokens(1, 1, 8)
    with torch.no_grad():
        heard = network(asked, None, network.condition(frames(1, 7), torch.tensor([7])))
        assert not torch.allclose(heard, network(asked), atol=1e-3)
    assert not any(name.endswith("cross.gate") for name, _ in network.named_parameters())


def test_a_closed_gate_lets_its_own_gradient_through(made: Made) -> None:
    network = made()
    heard = network.condition(frames(1, 5), torch.tensor([5]))
    network.head(network(tokens(1, 2, 6), None, heard)).square().sum().backward()
    for layer in network.layers:
        assert layer.cross.gate.grad.abs().sum() > 0


def test_padded_frames_and_their_values_do_not_matter(open_gates: DiffusionNetwork) -> None:
    asked = tokens(2, 2, 9)
    heard = frames(2, 8)
    other = heard.clone()
    other[1, 5:] = 50.0
    lengths = torch.tensor([8, 5])
    with torch.no_grad():
        first = open_gates(asked, None, open_gates.condition(heard, lengths))
        second = open_gates(asked, None, open_gates.condition(other, lengths))
        alone = open_gates(asked[1:], None, open_gates.condition(heard[1:, :5], torch.tensor([5])))
    assert torch.equal(first, second)
    assert torch.allclose(first[1:], alone, atol=1e-5)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_places_past_the_length_do_not_matter(open_gates: DiffusionNetwork) -> None:
    asked = tokens(2, 2, 9)
    other = asked.clone()
    other[1, :, 6:] = 4
    lengths = torch.tensor([9, 6])
    with torch.no_grad():
        first, second = open_gates(asked, lengths), open_gates(other, lengths)
        alone = open_gates(asked[1:, :, :6])
    assert torch.allclose(first[1, :, :6], second[1, :, :6], atol=1e-6)
    assert torch.allclose(first[1:, :, :6], alone, atol=1e-5)


def test_candidates_of_an_utterance_do_not_see_one_another(open_gates: DiffusionNetwork) -> None:
    asked = tokens(2, 3, 9)
    condition = open_gates.condition(frames(2, 8), torch.tensor([8, 5]))
    with torch.no_grad():
        together = open_gates(asked, None, condition)
        for candidate in range(3):
            alone = open_gates(asked[:, candidate : candidate + 1], None, condition)
            assert torch.allclose(together[:, candidate], alone[:, 0], atol=1e-5)


def test_every_place_sees_every_other(open_gates: DiffusionNetwork) -> None:
    asked = tokens(1, 1, 9)
    changed = asked.clone()
    changed[0, 0, -1] = (asked[0, 0, -1] + 1) % 11
    with torch.no_grad():
        moved = (open_gates(asked) - open_gates(changed)).abs().amax(-1)
    assert bool((moved > 1e-4).all())


def test_keys_and_values_are_computed_once_and_never_expanded(
    open_gates: DiffusionNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    projections, seen = [], []
    hear = CrossAttention.hear
    attend = nn.functional.scaled_dot_product_attention

    def counted(self: CrossAttention, given: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
        projections.append(given.shape)
        return hear(self, given, reached)

    def watched(query: Tensor, key: Tensor, value: Tensor, **rest: Tensor) -> Tensor:
        seen.append((query.shape, key.shape))
        return attend(query, key, value, **rest)

    monkeypatch.setattr(CrossAttention, "hear", counted)
    condition = open_gates.condition(frames(2, 8), torch.tensor([8, 5]))
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    with torch.no_grad():
        for _ in range(3):
            open_gates(tokens(2, 4, 9), None, condition)
    assert len(projections) == 2  # one a layer, however many steps
    across = [shapes for shapes in seen if shapes[1][2] == 8]
    assert len(across) == 6
    assert {tuple(key) for _, key in across} == {(2, 2, 8, 12)}
    assert {tuple(query) for query, _ in across} == {(2, 2, 4 * 9, 12)}


def test_an_encoder_of_the_same_width_needs_no_bridge(made: Made) -> None:
    assert made(condition_dim=16).bridge is None
    assert made().bridge is not None


def test_the_frame_code_tells_frames_apart_that_are_alike(made: Made) -> None:
    alike = torch.ones(1, 6, 10)

    def keys(code: str) -> Tensor:
        return made(frame_code=code).condition(alike, torch.tensor([6])).keys[0]

    plain = keys("none")
    assert torch.allclose(plain[:, :, 0], plain[:, :, 5])
    for code in ("time", "count"):
        assert not torch.allclose(keys(code)[:, :, 0], keys(code)[:, :, 5], atol=1e-3)


def test_counted_scores_hang_on_the_token_s_place_against_the_tokens_expected(made: Made) -> None:
    network = made(frame_code="count")
    cross = network.layers[0].cross
    alike = torch.ones(1, 4, 16)
    key, _ = cross.hear(alike, torch.tensor([[0.5, 1.5, 2.5, 3.5]]))
    query = cross.queries(torch.ones(1, 2, 5, 16))
    scores = (query @ key.transpose(2, 3))[0, 0].view(2, 5, 4)
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    for distance in range(3):
        found = [scores[0, place + distance, place - 1] for place in (1, 2)]
        assert torch.allclose(found[0], found[1], atol=1e-5)
    assert not torch.allclose(scores[0, 1, 0], scores[0, 2, 0], atol=1e-4)


def test_what_does_not_fit_is_refused(made: Made) -> None:
    with pytest.raises(ShapeError, match="13 tokens were given to a network of 12 positions"):
        made()(tokens(1, 1, 13))
    with pytest.raises(ShapeError, match="width 9 were given to a network for 10"):
        made().condition(torch.zeros(1, 3, 9), torch.tensor([3]))
    with pytest.raises(ShapeError, match="for text alone"):
        made(condition_dim=0).condition(torch.zeros(1, 3, 9), torch.tensor([3]))


def test_attention_scores_are_those_that_are_attended_by(open_gates: DiffusionNetwork) -> None:
    row = tokens(7)
    condition = open_gates.condition(frames(1, 8), torch.tensor([8]))
    with torch.no_grad():
        scores = open_gates.attention_scores(row, condition)
    assert scores.shape == (2, 7, 8)  # the upper layer's two heads
    layer = open_gates.layers[1]
    with torch.no_grad():
        x = open_gates.embed(row[None, None])
        turns = rotary(torch.arange(7), 12)
        heard = (condition.keys[0], condition.values[0], condition.mask[:, None, None])
        x = layer.attend(open_gates.layers[0](x, turns, None, heard), turns, None)
        normed = layer.norm_cross(x)
        mixed = layer.cross(
            normed, condition.keys[1], condition.values[1], condition.mask[:, None, None]
        )
        by_hand = (scores.softmax(-1) @ condition.values[1][0]).transpose(0, 1).reshape(1, 1, 7, 24)
    assert torch.allclose(layer.cross.out(by_hand) * layer.cross.gate, mixed, atol=1e-5)

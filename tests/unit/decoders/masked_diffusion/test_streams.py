"""Parallel streams of the text network: one is the plain network, more are joined by place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from speechadapt.adapters.streams import mixer_parameters
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork, SelfAttention
from speechadapt.decoders.masked_diffusion.rotary import rotary, rotate
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape

SHAPE = DiffusionShape(
    vocab_size=11, dim=16, layers=2, heads=2, feed_forward=24, positions=12, condition_dim=10
)


def made(streams: int, **changes: object) -> DiffusionNetwork:
    """Make a network with open gates and prefixes that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = DiffusionNetwork(replace(SHAPE, streams=streams, prefix=3, **changes))
        for name, part in network.named_parameters():
            if name.endswith("cross.gate") or name.startswith("streams"):
                nn.init.normal_(part, std=0.5)
    return network.eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(12, shape, generator=torch.Generator().manual_seed(0))


def heard(network: DiffusionNetwork, *lengths: int):
    frames = torch.randn(len(lengths), max(lengths), 10, generator=torch.Generator().manual_seed(1))
    return network.condition(frames, torch.tensor(lengths))


@torch.no_grad()
def test_one_stream_is_the_plain_network_bit_for_bit() -> None:
    torch.manual_seed(5)
    plain = DiffusionNetwork(SHAPE).eval()
    torch.manual_seed(5)
    one = DiffusionNetwork(replace(SHAPE, streams=1, prefix=7)).eval()
    assert list(one.state_dict()) == list(plain.state_dict())
    assert not any(name.startswith("streams") for name in plain.state_dict())
    asked = tokens(2, 3, 9)
    given = heard(plain, 7, 4)
    assert torch.equal(one(asked, None, given), plain(asked, None, given))


@torch.no_grad()
def test_a_prefix_is_in_the_softmax_of_the_positions_and_is_not_turned() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(SHAPE)
    x = torch.randn(2, 5, 16)
    keys, values = torch.randn(2, 2, 2, 3, 8)
    turns = rotary(torch.arange(5), 8)
    mask = torch.ones(2, 1, 1, 8, dtype=torch.bool)
    mask[1, ..., -2:] = False
    found = attention(x, turns, mask, (keys, values))
    for row, valid in enumerate((5, 3)):
        parts = attention.qkv(x[row : row + 1]).view(1, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
        query, key = rotate(parts[0], turns)[0], rotate(parts[1], turns)[0]
        mixed = []
        for head in range(2):
            all_keys = torch.cat([keys[row, head], key[head, :valid]])
            all_values = torch.cat([values[row, head], parts[2][0, head, :valid]])
            weights = (query[head] @ all_keys.T / 8**0.5).softmax(-1)
            mixed.append(weights @ all_values)
        expected = attention.out(torch.cat(mixed, -1))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_states_are_the_mean_of_streams_that_ran_alone() -> None:
    network = made(2)
    asked, given = tokens(2, 3, 9), heard(network, 7, 4)
    whole = network(asked, torch.tensor([9, 6]), given)
    own = network.streams.prefixes.clone()
    join = network.streams.join
    alone = []
    network.streams.join = lambda states: states[:, ::2]
    for stream in range(2):
        network.streams.prefixes.copy_(own[:, :, stream : stream + 1].expand_as(own))
        alone.append(network(asked, torch.tensor([9, 6]), given))
    network.streams.join = join
    joined = network.streams.mixer(torch.stack(alone, 2).flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(whole, joined, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@torch.no_grad()
def test_candidates_and_utterances_do_not_see_one_another() -> None:
    network = made(4)
    asked, lengths = tokens(2, 3, 9), torch.tensor([9, 6])
    given = heard(network, 7, 4)
    together = network(asked, lengths, given)
    for row, count in enumerate((9, 6)):
        for candidate in range(3):
            one = asked[row : row + 1, candidate : candidate + 1, :count]
            alone = network(one, None, given.select([row]))
            torch.testing.assert_close(
                together[row, candidate, :count], alone[0, 0], rtol=1e-4, atol=1e-5
            )


@torch.no_grad()
def test_streams_share_the_keys_and_values_of_the_frames() -> None:
    network, plain = made(4), made(1)
    assert [one.shape for one in heard(network, 7, 4).keys] == [
        one.shape for one in heard(plain, 7, 4).keys
    ]


@torch.no_grad()
def test_places_are_found_by_the_heads_of_all_streams() -> None:
    network = made(2)
    given = heard(network, 7)
    asked = tokens(5)
    found = network.attention_scores(asked, given)
    assert found.shape == (2 * 2, 5, 7)  # heads of one layer, streams; positions; frames
    own = network.streams.prefixes
    own.copy_(own[:, :, :1].expand_as(own).clone())
    same = network.attention_scores(asked, given).unflatten(0, (2, 2))
    torch.testing.assert_close(same[:, 0], same[:, 1])
    torch.testing.assert_close(same[:, 0], found.unflatten(0, (2, 2))[:, 0])


def test_everything_that_is_new_learns_at_once() -> None:
    network = made(2)
    network.head(network(tokens(2, 2, 6), None, heard(network, 5, 3))).square().sum().backward()
    for name, part in network.streams.named_parameters():
        assert bool((part.grad.abs().flatten(1).sum(1) > 0).all() if part.ndim > 1 else True), name
        assert part.grad.abs().sum() > 0, name


@pytest.mark.parametrize("streams", [2, 4])
def test_what_streams_add_is_the_closed_form(streams: int) -> None:
    sizes = [sum(one.numel() for one in made(count).parameters()) for count in (1, streams)]
    prefixes = 2 * 2 * streams * 3 * 16  # layers, keys and values, streams, prefix, width
    assert sizes[1] - sizes[0] == prefixes + mixer_parameters(16, streams)

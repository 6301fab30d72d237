from __future__ import annotations

import torch

from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary


def test_it_is_the_same_every_time_and_hears() -> None:
    vocabulary = tiny_vocabulary()
    torch.manual_seed(5)
    first, again = tiny_network(vocabulary, 10), tiny_network(vocabulary, 10)
    states = first.state_dict()
    assert all(torch.equal(one, states[name]) for name, one in again.state_dict().items())
    assert first.layers[0].cross.gate.abs().min() > 0
    assert vocabulary.size == 258

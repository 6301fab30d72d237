"""A random masked-diffusion network with a byte-level tokenizer, for tests."""

from __future__ import annotations

import torch
from torch import nn

from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.vocabulary import (
    Vocabulary,
    own_vocabulary,
    train_tokenizer,
)


def tiny_vocabulary() -> Vocabulary:
    """Make a vocabulary of 256 bytes, a pad and a start token."""
    return own_vocabulary(train_tokenizer([], 258))


def tiny_network(
    vocabulary: Vocabulary,
    condition_dim: int = 0,
    seed: int = 0,
    positions: int = 24,
    streams: int = 1,
) -> DiffusionNetwork:
    """Make a two-layer network.

    Its weights are large and its gates open, so that its texts differ from clip to clip.

    Args:
        vocabulary: What it writes.
        condition_dim: Width of the frames; 0 for text alone.
        seed: Seed of the weights.
        positions: Most tokens.
        streams: Parallel streams.
    """
    shape = DiffusionShape(
        vocab_size=vocabulary.size,
        dim=24,
        layers=2,
        heads=2,
        feed_forward=32,
        positions=positions,
        condition_dim=condition_dim,
        streams=streams,
        prefix=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DiffusionNetwork(shape)
        for name, part in network.named_parameters():
            if name.endswith("cross.gate"):
                nn.init.normal_(part, mean=1.0, std=0.5)
            elif part.ndim > 1 and not name.startswith("length_head"):
                nn.init.normal_(part, std=0.4)
    return network.eval()

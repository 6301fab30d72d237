"""Decoders of a given size with random weights, over the frames of one random encoder.

Weights do not change the cost of a step, so sizes alone count. What would follow from what is heard
is set: the autoregressive decoder writes exactly as many tokens as it is told, and the length head
expects that many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from speechadapt.bench.options import DecoderBench
from speechadapt.bench.sides import ONE_TRY, Side, diffusion_side, searches, side_of
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.length import LengthHead
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.tiny import tiny_vocabulary
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.decoders.whisper_ar.options import WhisperOptions
from speechadapt.decoders.whisper_ar.tiny import tiny_generation, tiny_tokenizer
from speechadapt.encoders.whisper import WhisperEncoder


@dataclass(frozen=True)
class Geometry:
    """Sizes of an encoder and of the decoders for it.

    Args:
        dim: Width of everything.
        heads: Attention heads of everything.
        feed_forward: Inner width of the feed-forwards of everything.
        encoder_layers: Layers of the encoder.
        decoder_layers: Layers of the autoregressive decoder.
        diffusion_layers: Layers of the diffusion decoder.
        window_s: The encoder's padded window in seconds.
        vocab_size: Tokens of the autoregressive decoder.
        diffusion_vocab_size: Tokens of the diffusion decoder.
        positions: Positions of the diffusion decoder.
    """

    dim: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    diffusion_layers: int
    window_s: int
    vocab_size: int
    diffusion_vocab_size: int
    positions: int


GEOMETRIES = {
    # Whisper-small and the text network of 170 M parameters without embeddings, as in Whisfusion
    "paper": Geometry(768, 12, 3072, 12, 12, 18, 30, 51865, 32000, 256),
    "mini": Geometry(192, 4, 512, 4, 2, 6, 10, 1121, 640, 96),
    "tiny": Geometry(32, 4, 48, 1, 1, 1, 2, 600, 300, 24),
}


@dataclass(frozen=True)
class RandomModel:
    """An encoder and the networks of its decoders.

    Args:
        encoder: Pads to its window.
        whisper: Its autoregressive decoder is used.
        diffusion: Takes the encoder's frames.
        vocabulary: Of the diffusion network.
    """

    encoder: WhisperEncoder
    whisper: WhisperForConditionalGeneration
    diffusion: DiffusionNetwork
    vocabulary: Vocabulary

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part, embeddings included."""
        decoder = [*self.whisper.model.decoder.parameters()]
        return {
            "encoder": _count(self.encoder.model.parameters()),
            "autoregressive decoder": _count(decoder),
            "diffusion decoder": _count(self.diffusion.parameters()),
        }


def make(geometry: Geometry, tokens_per_s: float, device: str, dtype: str) -> RandomModel:
    """Make the networks, always the same.

    Args:
        geometry: Their sizes.
        tokens_per_s: Tokens that the length head expects in a second.
        device: A torch device.
        dtype: `float32`, `float16` or `bfloat16`.
    """
    place = (torch.device(device), getattr(torch, dtype))
    byte_level = tiny_vocabulary()
    size = geometry.diffusion_vocab_size
    vocabulary = Vocabulary(byte_level.tokenizer, byte_level.start_id, byte_level.pad_id, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whisper = WhisperForConditionalGeneration(_whisper_config(geometry)).eval()
        diffusion = DiffusionNetwork(_diffusion_shape(geometry)).eval()
    extractor = WhisperFeatureExtractor(chunk_length=geometry.window_s)
    encoder = WhisperEncoder(whisper.model, extractor)
    assert diffusion.length_head is not None
    _expect(diffusion.length_head, tokens_per_s / encoder.frame_rate)
    return RandomModel(
        encoder.to(*place).eval(), whisper.to(*place), diffusion.to(*place), vocabulary
    )


def random_sides(
    model: RandomModel, tokens: int, settings: Iterable[DiffusionOptions]
) -> list[Side]:
    """Return the sides for utterances of one length.

    Args:
        model: As `make` gives it.
        tokens: What the autoregressive decoder writes, and the length head expects.
        settings: A diffusion side for each.
    """
    encoder = model.encoder
    sides = [
        side_of(name, encoder, _whisper_decoder(model, tokens, found), **found)
        for name, found in searches(model.diffusion.head.weight.device.type).items()
    ]
    ctc = CtcDecoder.tiny(encoder.dim)
    ctc.options = replace(ctc.options, word_timestamps=False)
    first = model.diffusion.head.weight
    sides.append(side_of("CTC, greedy", encoder, ctc.to(first.device, first.dtype).eval()))
    decoder = DiffusionDecoder(model.diffusion, model.vocabulary).eval()
    return sides + [diffusion_side(encoder, decoder, one) for one in settings]


def random_settings(options: DecoderBench, heads: Iterable[bool]) -> list[DiffusionOptions]:
    """Return the diffusion sides of a comparison with random weights.

    Every step is taken: when a text of random weights stops changing says nothing about speech.

    Args:
        options: What was asked for; the largest number of steps is taken.
        heads: Whether the length head says how many positions are computed.
    """
    return [
        DiffusionOptions(
            num_candidates=count,
            num_steps=options.step_counts[-1],
            select=options.selection_names[0],
            length_head=None if head else False,
            early_stop=False,
        )
        for head in heads
        for count in options.candidate_counts
    ]


def _whisper_decoder(model: RandomModel, tokens: int, search: Mapping[str, Any]) -> WhisperDecoder:
    tokenizer = tiny_tokenizer()
    settings = tiny_generation(tokenizer)
    settings.suppress_tokens = [*settings.suppress_tokens, settings.eos_token_id]
    whisper = model.whisper
    whisper.generation_config = deepcopy(settings)
    options = WhisperOptions(language="en", sample_len=tokens, **search, **ONE_TRY)
    return WhisperDecoder(whisper, tokenizer, options).eval()


def _whisper_config(geometry: Geometry) -> WhisperConfig:
    tokenizer = tiny_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    return WhisperConfig(
        vocab_size=geometry.vocab_size,
        num_mel_bins=80,
        d_model=geometry.dim,
        encoder_layers=geometry.encoder_layers,
        encoder_attention_heads=geometry.heads,
        encoder_ffn_dim=geometry.feed_forward,
        decoder_layers=geometry.decoder_layers,
        decoder_attention_heads=geometry.heads,
        decoder_ffn_dim=geometry.feed_forward,
        max_source_positions=50 * geometry.window_s,
        max_target_positions=448,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _diffusion_shape(geometry: Geometry) -> DiffusionShape:
    return DiffusionShape(
        vocab_size=geometry.diffusion_vocab_size,
        dim=geometry.dim,
        layers=geometry.diffusion_layers,
        heads=geometry.heads,
        feed_forward=geometry.feed_forward,
        positions=geometry.positions,
        condition_dim=geometry.dim,
        gate="none",
    )


@torch.no_grad()
def _expect(head: LengthHead, tokens_per_frame: float) -> None:
    """Make a length head expect the same in every frame, within its narrowest width."""
    nn.init.zeros_(head.amount.weight)
    nn.init.constant_(head.amount.bias, math.log(math.expm1(tokens_per_frame)))
    nn.init.zeros_(head.width.weight)
    nn.init.constant_(head.width.bias, -20.0)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)

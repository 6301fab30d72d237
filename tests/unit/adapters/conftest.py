"""Fixtures for the adapters: fresh tiny encoders, a batch of clips, adapters as after training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import Handle
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.w2v_bert import W2vBertEncoder


@pytest.fixture
def load(tiny_folder) -> Callable[..., Encoder]:
    """Load a fresh tiny encoder of a family, at native length where it has the choice."""

    def make(family: str = "whisper", **options: str) -> Encoder:
        return load_encoder(tiny_folder(family), **{"padding": "native", **options})

    return make


@pytest.fixture
def rotary() -> Callable[[], Encoder]:
    """Make a Conformer of mini-usm's kind, whose positions are rotary."""

    def make() -> Encoder:
        config = Wav2Vec2BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            layerdrop=0.0,
            apply_spec_augment=False,
            initializer_range=0.2,
            position_embeddings_type="rotary",
        )
        torch.manual_seed(0)
        return W2vBertEncoder(Wav2Vec2BertModel(config), SeamlessM4TFeatureExtractor()).freeze()

    return make


@pytest.fixture
def clips(signal) -> list[Tensor]:
    return [signal(samples, seed) for seed, samples in enumerate((16000, 9001, 5431))]


@pytest.fixture
def move() -> Callable[[Handle], None]:
    """Change every trainable tensor, as training would."""

    def act(handle: Handle, size: float = 0.05) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in handle.parameters():
                parameter += (size * torch.randn(parameter.shape, generator=generator)).to(
                    parameter.dtype
                )

    return act


@pytest.fixture
def trained() -> Callable[..., list[Handle]]:
    """Attach adapters of one method under several names, each as after a training of its own."""

    def make(
        encoder: Encoder, method: str = "parallel", names: str = "abc", **options: object
    ) -> list[Handle]:
        handles = []
        for seed, name in enumerate(names):
            torch.manual_seed(seed)
            options = {"config": method_of(method).tiny, "activate": False, **options}
            handle = attach(encoder, method, name=name, **options)
            handle.module.eval().requires_grad_(False)
            with torch.no_grad():
                for parameter in handle.parameters():
                    parameter += 0.1 * torch.randn(parameter.shape)
            handles.append(handle)
        return handles

    return make


@pytest.fixture
def frames(clips: list[Tensor]) -> Callable[..., Tensor]:
    """Encode the clips with these adapters."""

    @torch.no_grad()
    def run(encoder: Encoder, names: object, **more: object) -> Tensor:
        with active(encoder, names, **more):  # type: ignore[arg-type]
            return encoder.encode(clips)[0]

    return run

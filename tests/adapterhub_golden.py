"""The stored AdapterHub folders, see tools/make_adapterhub_golden.py, and their base."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechadapt.adapters.interop import adapterhub
from speechadapt.adapters.interop.foreign import Foreign
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.whisper import WhisperEncoder

GOLDEN = Path(__file__).parent / "data" / "adapterhub"
METHODS = {
    "lora": "lora",
    "lora_all": "lora",
    "seq_bn": "pfeiffer",
    "double_seq_bn": "houlsby",
    "normed": "pfeiffer",
    "par_bn": "parallel",
    "scaled_par_bn": "parallel",
}


def base() -> WhisperEncoder:
    """Build the encoder they were made on."""
    model = WhisperModel(WhisperConfig(**json.loads((GOLDEN / "config.json").read_text()))).eval()
    model.encoder.load_state_dict(load_file(GOLDEN / "base.safetensors"))
    encoder = WhisperEncoder(model, WhisperFeatureExtractor(feature_size=8, chunk_length=1))
    encoder.freeze()
    return encoder


@torch.no_grad()
def frames(encoder: Encoder) -> Tensor:
    """Encode the stored input in double precision, as the stored output was."""
    features = golden("features").double()
    encoder.double()
    found = encoder(features, torch.tensor([features.shape[-1]]))[0].float()
    encoder.float()
    return found


def golden(name: str) -> Tensor:
    """Return the stored output with one adapter, or `features` or `base`."""
    return load_file(GOLDEN / "golden.safetensors")[name]


def read(folder: Path, encoder: Encoder) -> Foreign:
    """Read a folder, pickles allowed and the decoder left out."""
    return adapterhub.read(folder, encoder, allow_pickle=True, encoder_only=True)

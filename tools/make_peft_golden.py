"""Make the stored PEFT folder that names modules as transformers 4.57 did.

    python -m venv golden && golden/bin/pip install 'transformers==4.57.6' peft==0.21.2 torch
    golden/bin/python tools/make_peft_golden.py tests/data/peft/ast_4_57

A tiny random audio spectrogram transformer with a classifier gets a LoRA with random weights and
encodes one random spectrogram. Written: the model folder, the input, the last hidden states without
and with the adapter, and the adapter folder as PEFT saves it. Nothing here imports the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification


def main(folder: Path) -> None:
    """Write everything into `folder`."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_length=60,
        num_mel_bins=32,
        initializer_range=0.2,
        num_labels=3,
    )
    model = ASTForAudioClassification(config).eval()
    spectrogram = torch.randn(1, config.max_length, config.num_mel_bins)
    model.save_pretrained(folder / "base")
    extractor = ASTFeatureExtractor(max_length=config.max_length, num_mel_bins=config.num_mel_bins)
    extractor.save_pretrained(folder / "base")
    outputs = {"base": encode(model, spectrogram)}
    lora = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["query", "value", "dense"],
        rank_pattern={"query": 3},
        alpha_pattern={"value": 1},
        modules_to_save=["classifier"],
    )
    adapted = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    outputs["adapted"] = encode(adapted.base_model.model, spectrogram)
    adapted.save_pretrained(str(folder / "adapter"))
    (folder / "adapter" / "README.md").unlink()
    save_file({"spectrogram": spectrogram, **outputs}, folder / "golden.safetensors")


def encode(model: ASTForAudioClassification, spectrogram: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():  # in double precision, so that the result depends on no machine
        inner = model.double().audio_spectrogram_transformer
        states = inner(spectrogram.double()).last_hidden_state
    model.float()
    return states.float().contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

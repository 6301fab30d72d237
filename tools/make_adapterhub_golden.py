"""Make the stored AdapterHub folders that the import is tested against.

The library pins transformers 4.57, so it runs in an environment of its own:

    python -m venv golden && golden/bin/pip install adapters==1.3.0 torch safetensors
    golden/bin/python tools/make_adapterhub_golden.py tests/data/adapterhub

A tiny random Whisper gets each adapter in turn, with random weights throughout, and encodes one
random input. Written: the encoder's weights and config, the input, the output without and with each
adapter, and the adapter folders as the library saves them (one as a pickle, its default).
Nothing here imports the package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import adapters
import torch
from adapters.composition import Fuse
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperModel

CONFIG = {
    "vocab_size": 16,
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "max_source_positions": 50,
    "max_target_positions": 8,
    "init_std": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
ADAPTERS = {
    "lora": adapters.LoRAConfig(r=3, alpha=6, intermediate_lora=True, output_lora=True),
    "lora_all": adapters.LoRAConfig(r=2, alpha=2, attn_matrices=["q", "k", "v"]),
    "seq_bn": adapters.SeqBnConfig(reduction_factor=4),
    "double_seq_bn": adapters.DoubleSeqBnConfig(reduction_factor=4),
    "normed": adapters.SeqBnConfig(reduction_factor=4, ln_before=True, residual_before_ln=False),
    "par_bn": adapters.ParBnConfig(reduction_factor=4),
    "scaled_par_bn": adapters.ParBnConfig(reduction_factor=4, scaling="learned"),
}
PICKLED = ("normed",)  # the library cannot save its shared tensors as safetensors


def main(folder: Path) -> None:
    """Write everything into `folder`."""
    torch.manual_seed(0)
    model = WhisperModel(WhisperConfig(**CONFIG)).eval()
    features = torch.randn(1, CONFIG["num_mel_bins"], 2 * CONFIG["max_source_positions"])
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    base = {name: value.contiguous() for name, value in model.encoder.state_dict().items()}
    save_file(base, folder / "base.safetensors")
    outputs = {"base": encode(model, features)}
    adapters.init(model)
    for name, config in ADAPTERS.items():
        model.add_adapter(name, config=config)
        randomise(model, name)
        model.set_active_adapters(name)
        outputs[name] = encode(model, features)
        save(model, name, folder / name, use_safetensors=name not in PICKLED)
    outputs["fusion"] = fuse(model, features, folder / "fusion")
    save_file({"features": features, **outputs}, folder / "golden.safetensors")


def encode(model: WhisperModel, features: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():  # in double precision, so that the result depends on no machine
        frames = model.double().encoder(features.double()).last_hidden_state
    model.float()
    return frames.float().contiguous()


def randomise(model: WhisperModel, name: str) -> None:
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if name in path.split("."):
                shift = 1.0 if parameter.numel() == 1 or "adapter_down.0.weight" in path else 0.0
                parameter.copy_(0.3 * torch.randn_like(parameter) + shift * (parameter.dim() == 1))


def save(model: WhisperModel, name: str, folder: Path, use_safetensors: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_adapter(str(folder), name, with_head=False, use_safetensors=use_safetensors)


def fuse(model: WhisperModel, features: torch.Tensor, folder: Path) -> torch.Tensor:
    for name in ("first", "second"):
        model.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=8))
        randomise(model, name)
    setup = Fuse("first", "second")
    model.add_adapter_fusion(setup)
    randomise(model, "first,second")
    model.set_active_adapters(setup)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_adapter_setup(str(folder), setup, use_safetensors=True)
    return encode(model, features)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

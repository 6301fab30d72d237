"""What a masked-diffusion run starts from: nothing, an earlier stage, or another project's file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from speechadapt.core.errors import CheckpointError
from speechadapt.decoders.masked_diffusion.foreign import read_foreign, with_audio
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.store import read_folder
from speechadapt.decoders.masked_diffusion.vocabulary import (
    Vocabulary,
    llama_vocabulary,
    own_vocabulary,
    train_tokenizer,
)
from speechadapt.training.diffusion.config import NetworkConfig, Stage
from speechadapt.training.sources import model_folder

_EARS = (".cross.", ".norm_cross.", ".bridge.", ".length_head.")
_STREAMS = ".streams."


def start(
    config: NetworkConfig, init: str, tokenizer: str, texts: Iterable[str], condition_dim: int
) -> tuple[DiffusionNetwork, Vocabulary]:
    """Return the network of a run, in float32, and its vocabulary.

    Args:
        config: Shape of a new network, and of the ears of one that has none.
        init: A folder of an earlier stage, a bundled model, or a `.safetensors` file of SMDM or
            Whisfusion; empty starts anew.
        tokenizer: Folder with the Llama tokenizer of such a file.
        texts: What a new vocabulary is learned from.
        condition_dim: Width of the frames; 0 for text alone.

    Raises:
        CheckpointError: What is started from is missing, damaged, hears other frames, or has
            several streams and not as many as were asked for.
    """
    if not init:
        vocabulary = own_vocabulary(train_tokenizer(texts, config.text_tokens))
        return DiffusionNetwork(_shape(config, vocabulary.size, condition_dim)), vocabulary
    if init.endswith(".safetensors"):
        network = read_foreign(Path(init).expanduser(), positions=config.positions)
        size = network.shape.vocab_size
        vocabulary = llama_vocabulary(Path(tokenizer).expanduser(), size)
    else:
        network, vocabulary = read_folder(model_folder(init))
    found = network.shape.condition_dim
    if found not in (0, condition_dim):
        raise CheckpointError(
            f"'{init}' hears frames of width {found}, the run has frames of width {condition_dim}. "
            "Name the encoder it was trained on, or start from a model of text alone."
        )
    changes = {"dropout": config.dropout, **_streams(network.shape, config, init)}
    if found == condition_dim:
        again = DiffusionNetwork(DiffusionShape(**network.shape.to_json() | changes))
        again.load_state_dict({**again.state_dict(), **network.state_dict()})
        return again, vocabulary
    ears = ("gate", "frame_code", "length_head")
    own = {name: value for name, value in asdict(config).items() if name in ears}
    return with_audio(network, condition_dim, changes | own), vocabulary


def train_only(network: DiffusionNetwork, stage: Stage) -> None:
    """Leave to training what a stage trains: all, or in `adapter` what hears and the streams.

    Args:
        network: Its other parameters lose their gradients.
        stage: The stage.
    """
    for name, part in network.named_parameters():
        beside = any(part_of in f".{name}" for part_of in (*_EARS, _STREAMS))
        part.requires_grad = stage != "adapter" or beside


def _streams(found: DiffusionShape, config: NetworkConfig, init: str) -> dict[str, int]:
    """Return the streams that a network of one is to have."""
    if found.streams == 1:
        return {"streams": config.streams, "prefix": config.prefix}
    if config.streams not in (1, found.streams):
        raise CheckpointError(
            f"model.streams={config.streams} was asked for, '{init}' has {found.streams} streams. "
            "Start from a network of one stream, or leave model.streams out."
        )
    return {}


def _shape(config: NetworkConfig, vocab_size: int, condition_dim: int) -> DiffusionShape:
    own = asdict(config)
    del own["text_tokens"]
    return DiffusionShape(vocab_size=vocab_size, condition_dim=condition_dim, **own)

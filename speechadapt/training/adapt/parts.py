"""The parts of an adaptation: the base encoder, the CTC head, and the model that both make."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import Wav2Vec2BertForCTC

from speechadapt.audio.margin import SETTINGS_FILE
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import atomic_write_json
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.source import quiet_progress
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.models.build import find_model, quiet_loading
from speechadapt.text.alphabet import Alphabet, read_alphabet
from speechadapt.training.conformer import save_model

# What is adapted where nothing is named: the bundled model that a CTC head sits on.
BUNDLED_BASE = "mini-usm"


def is_hub_id(base: str) -> bool:
    """Return whether a model's name is neither bundled nor a folder, but `owner/name`."""
    return "/" in base and not Path(base).expanduser().is_dir()


def load_base(base: str, padding: str) -> tuple[Encoder, Path]:
    """Load the encoder to adapt, in float32, and say where it lies.

    Args:
        base: A bundled model, a folder or a hub id; empty means `BUNDLED_BASE`.
        padding: `full` or `native`, for families with a window.

    Raises:
        CatalogError: There is no such model.
        CheckpointError: It is incomplete or damaged.
    """
    folder = find_model(base or BUNDLED_BASE)
    # a hub id stays the encoder's name, because that is what another machine can find
    with quiet_loading():
        return load_encoder(base if is_hub_id(base) else folder, padding=padding), folder


def choose_alphabet(choice: str, folder: Path, needed: Alphabet) -> Alphabet:
    """Return the alphabet of the head.

    Args:
        choice: `texts` takes what the training texts need, `base` what the base writes, `both` the
            latter and after it what else the texts need.
        folder: The base.
        needed: The alphabet of the training texts.

    Raises:
        ConfigError: The base's alphabet lacks letters of the texts.
        CheckpointError: The base has no alphabet.
    """
    if choice == "texts":
        return needed
    own = read_alphabet(folder)
    lacking = own.missing("".join(needed.symbols[2:]))
    if choice == "both":
        return replace(own, symbols=(*own.symbols, *lacking))
    if lacking:
        raise ConfigError(
            f"alphabet=base was asked for, but {folder.name} cannot write {lacking} of the "
            "training texts. Use alphabet=texts, or alphabet=both."
        )
    return own


def new_head(dim: int, alphabet: Alphabet, folder: Path, keep: bool) -> nn.Linear:
    """Return the linear map from frames to symbols, random or the base's own.

    Args:
        dim: Width of the frames.
        alphabet: One symbol per output.
        folder: The base.
        keep: Start from the base's head; symbols that it lacks start at random.

    Raises:
        CheckpointError: The base has no CTC head.
        ConfigError: The base's head has symbols that are not among these.
    """
    head = nn.Linear(dim, len(alphabet))
    if keep:
        try:
            own = CtcDecoder.from_folder(folder, {})
        except CheckpointError as error:
            raise CheckpointError(f"keep_head=true was asked for, but: {error}") from error
        if not set(read_alphabet(folder).symbols) <= alphabet.ids.keys():
            raise ConfigError(
                f"keep_head=true was asked for, but {folder.name} has {len(own.alphabet)} symbols "
                f"and the run {len(alphabet)} others. Set alphabet=base or alphabet=both, or "
                "keep_head=false."
            )
        pairs = [
            (own.alphabet.ids[one], place)
            for one, place in alphabet.ids.items()
            if one in own.alphabet.ids
        ]
        theirs, ours = map(list, zip(*pairs, strict=True))
        with torch.no_grad():
            head.weight[ours] = own.head.weight[theirs]
            head.bias[ours] = own.head.bias[theirs]
    return head


def check_whole(encoder: Encoder) -> None:
    """Refuse to fine-tune what cannot be saved as a model with a CTC head.

    Raises:
        ConfigError: transformers has no such model for the encoder's family.
    """
    if not isinstance(encoder, W2vBertEncoder):
        raise ConfigError(
            f"arm=full saves an ordinary model with a CTC head, which transformers has for "
            f"w2v_bert and not for {encoder.family}. Use arm=adapter or arm=head."
        )


def save_whole(
    encoder: Encoder, head: nn.Linear, alphabet: Alphabet, margin_s: float, folder: Path
) -> None:
    """Write a fine-tuned encoder with its head as a transformers folder, in half precision.

    Args:
        encoder: A w2v-BERT encoder.
        head: The head.
        alphabet: Its symbols.
        margin_s: Hiss on either side of a clip, in seconds.
        folder: Where to write.
    """
    assert isinstance(encoder, W2vBertEncoder)
    settings = copy.deepcopy(encoder.model.config)
    settings.vocab_size = len(alphabet)
    settings.pad_token_id = alphabet.blank_id
    with torch.random.fork_rng():
        model = Wav2Vec2BertForCTC(settings)
    model.wav2vec2_bert.load_state_dict(encoder.model.state_dict())
    model.lm_head.load_state_dict(head.state_dict())
    with quiet_progress():
        save_model(model, encoder.extractor, alphabet, folder)
    atomic_write_json(folder / SETTINGS_FILE, {"margin_s": margin_s})

"""The frozen models of a distillation: who teaches, who learns, and who reads what was heard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.core.shapes import Frames, Lengths, Tokens
from speechadapt.decoders.base import Decoder
from speechadapt.decoders.catalog import decoder_for
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.decoders.whisper_ar.generate import Generator
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.source import weight_files
from speechadapt.encoders.whisper import WhisperEncoder
from speechadapt.models.build import find_model, margin_of, quiet_loading
from speechadapt.training.adapt.parts import is_hub_id, load_base
from speechadapt.training.objective import Batch

IGNORED = -100


@dataclass(frozen=True)
class Model:
    """A frozen model.

    Args:
        encoder: Its encoder.
        decoder: What writes from its frames; None where the folder holds none.
        folder: Where it lies.
        margin_s: Hiss on either side of a clip that it is used with, in seconds.
    """

    encoder: Encoder
    decoder: Decoder | None
    folder: Path
    margin_s: float


def load_model(name: str, padding: str, language: str = "") -> Model:
    """Load a model with the decoder its folder holds, in float32.

    Args:
        name: A bundled model, a folder or a hub id; empty means the bundled default.
        padding: `full` or `native`, for encoder and decoder alike.
        language: Of the decoder's texts, where it knows several; empty leaves it to the decoder.

    Raises:
        CatalogError: There is no such model.
        CheckpointError: It is incomplete or damaged.
    """
    encoder, folder = load_base(name, padding)
    return Model(encoder, load_decoder(folder, padding, language), folder, margin_of(folder))


def load_decoder(folder: Path, padding: str, language: str = "") -> Decoder | None:
    """Load the decoder of a model folder, greedy and without second tries; None where it has none.

    Args:
        folder: A model folder.
        padding: How a Whisper decoder attends to frames: to the `full` window or `native` lengths.
        language: Of a Whisper decoder's texts; empty leaves it to the decoder.

    Raises:
        CheckpointError: The folder is damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = decoder_for(config)
    except CatalogError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no model folder: config.json: {error}.") from error
    options: dict[str, Any] = {}
    if kind is WhisperDecoder:
        options = {"padding": padding, "temperature": (0.0,), "language": language or None}
    with quiet_loading():
        decoder = kind.from_folder(folder, options)
    decoder.requires_grad_(False)
    return decoder


def base_sources(name: str, label: str = "base") -> dict[str, Path]:
    """Name a model's weights, where they are on this machine from the start.

    Args:
        name: As for `load_model`.
        label: What the run calls the model.
    """
    if is_hub_id(name):
        return {}
    return {f"{label}/{path.name}": path for path in weight_files(find_model(name or None))}


def teacher_of(encoder: Encoder) -> Encoder:
    """Return the encoder that hears whole windows through the same weights.

    For a Whisper encoder at native length that is another view on its modules, which shares
    every weight; every other encoder is its own teacher. Attached adapters act on shared modules
    too, so the teacher is to be called where none is active.

    Args:
        encoder: The student's encoder.
    """
    if isinstance(encoder, WhisperEncoder) and encoder.padding == "native":
        view = WhisperEncoder(encoder.model, encoder.extractor, "full")
        view.source = encoder.source
        return view
    return encoder


class TextReader:
    """A frozen Whisper decoder that reads transcripts along with frames (teacher forcing).

    Args:
        decoder: The decoder.

    Raises:
        ConfigError: It knows several languages and names none as its own.
    """

    def __init__(self, decoder: WhisperDecoder) -> None:
        self.vocabulary = decoder.vocabulary
        known = list(self.vocabulary.languages)
        language = decoder.options.language or self.vocabulary.default_language
        if language is None and len(known) > 1:
            raise ConfigError(
                "transcripts were to be read by a decoder of several languages that names none as "
                "its own. Set `language`, such as language=en."
            )
        language = language or (known[0] if known else None)
        self.prompt = self.vocabulary.prompt(language, decoder.options.task, True)
        self.most = int(decoder.network.config.max_target_positions)
        self._generators = {
            padding: Generator(
                decoder.network, self.vocabulary, replace(decoder.options, padding=padding)
            )
            for padding in ("full", "native")
        }

    def tokens(self, texts: Sequence[str]) -> tuple[Tokens, Tokens]:
        """Return what goes into the decoder and what should come out.

        Args:
            texts: Transcripts; an empty one stands for a row whose text nobody knows.

        Returns:
            Prompt and text, and the token that follows each (`IGNORED` within the prompt, past the
            end, and in a row without a text).
        """
        inputs: list[Tensor] = []
        labels: list[Tensor] = []
        end = self.vocabulary.end
        for text in texts:
            written = self.vocabulary.tokenizer.encode(f" {text}", add_special_tokens=False).ids
            row = [*self.prompt, *(written if text else []), end][: self.most + 1]
            silent = len(self.prompt) - 1 if text else len(row) - 1
            inputs.append(torch.tensor(row[:-1]))
            labels.append(torch.tensor([IGNORED] * silent + row[1:][silent:]))
        pad = nn.utils.rnn.pad_sequence
        return (
            pad(inputs, batch_first=True, padding_value=end),
            pad(labels, batch_first=True, padding_value=IGNORED),
        )

    def batch(self, texts: Sequence[str]) -> Batch:
        """Return the tokens of a batch by the names the objectives know them by.

        Args:
            texts: See `tokens`.
        """
        inputs, labels = self.tokens(texts)
        return {"inputs": inputs, "labels": labels}

    def logits(
        self, frames: Frames, lengths: Lengths, inputs: Int[Tensor, "batch tokens"], padding: str
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Return float32 logits after each token.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row.
            inputs: As `tokens` returns them.
            padding: `full` attends to every frame, `native` to the valid ones.
        """
        return self._generators[padding].forward(frames, lengths, inputs)

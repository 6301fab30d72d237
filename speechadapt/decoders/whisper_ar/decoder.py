"""Whisper's decoder as it is, over frames of our own encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import GenerationConfig, WhisperForConditionalGeneration

from speechadapt.core.errors import CheckpointError
from speechadapt.core.seed import derive_seed
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Decoder, Hypothesis, Word, compression_ratio
from speechadapt.decoders.options import parse_options
from speechadapt.decoders.whisper_ar.fallback import Verdict, decode_with_fallback
from speechadapt.decoders.whisper_ar.generate import Draft, Generator
from speechadapt.decoders.whisper_ar.options import WhisperOptions
from speechadapt.decoders.whisper_ar.timing import align
from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer
from speechadapt.decoders.whisper_ar.tokens import read_vocabulary
from speechadapt.encoders.source import load_weights


class WhisperDecoder(Decoder):
    """The autoregressive decoder of a Whisper model.

    Args:
        network: The model; its encoder is let go, because the frames come from outside.
        tokenizer: Its tokenizer.
        options: How to decode.

    Raises:
        CheckpointError: The generation settings do not name the start and end tokens.
        ConfigError: The model lacks the language or task.
    """

    name = "whisper_ar"

    def __init__(
        self,
        network: WhisperForConditionalGeneration,
        tokenizer: Tokenizer,
        options: WhisperOptions | None = None,
    ) -> None:
        super().__init__()
        self.options = options or WhisperOptions()
        generation = network.generation_config
        self.vocabulary = read_vocabulary(generation, tokenizer)
        self.vocabulary.check(self.options.language, self.options.task)
        heads = generation.to_dict().get("alignment_heads") or ()
        self.alignment_heads = tuple((int(layer), int(head)) for layer, head in heads)
        self.network = network
        self.network.model.encoder = nn.Identity()
        # transformers fills what a pass leaves open from here, which must stay our own filters.
        self.network.generation_config = GenerationConfig()
        self.generator = Generator(network, self.vocabulary, self.options)

    @classmethod
    def claims(cls, config: Mapping[str, Any]) -> bool:
        """Tell whether the folder holds a Whisper model with its decoder."""
        return "WhisperForConditionalGeneration" in (config.get("architectures") or ())

    @classmethod
    def from_folder(cls, folder: Path, options: Mapping[str, Any]) -> WhisperDecoder:
        """Load the decoder and tokenizer of a Whisper folder, in float32 on the CPU.

        Raises:
            CheckpointError: Weights or `tokenizer.json` are missing or damaged.
            ConfigError: An option is unknown or out of range.
        """
        wanted = parse_options(WhisperOptions, options, cls.name)
        tokenizer = _read_tokenizer(folder)
        network = load_weights(WhisperForConditionalGeneration, folder, torch.float32)
        return cls(network, tokenizer, wanted).eval()

    @classmethod
    def tiny(cls, dim: int) -> WhisperDecoder:
        """Make one with random weights and a byte-level tokenizer."""
        options = WhisperOptions(sample_len=8, temperature=(0.0, 0.6))
        return cls(tiny_network(dim), tiny_tokenizer(), options).eval()

    def settings(self) -> dict[str, Any]:
        """Return the options and the model's own token rules."""
        return asdict(self.options) | {
            "temperature": list(self.options.temperature),
            "suppressed": list(self.vocabulary.suppressed),
            "suppressed_first": list(self.vocabulary.suppressed_first),
            "default_language": self.vocabulary.default_language,
            "alignment_heads": [list(head) for head in self.alignment_heads],
        }

    @torch.inference_mode()
    def decode(
        self,
        frames: Frames,
        lengths: Lengths,
        frame_rate: float,
        languages: Sequence[str | None] | None = None,
    ) -> list[Hypothesis]:
        """Write one hypothesis per row; a row without frames gets the empty text.

        A row's language is the option's, else the model's one, else that of `languages` where the
        model knows it, else the one it hears.

        Rows whose text fails a threshold are decoded again at higher temperatures, alone. Samples
        are seeded by what the row said at the first temperature, so they are the same in any batch.
        A row taken for silence has the empty text, the flag `no_speech`, and what was written in
        `details["raw_text"]`.
        """
        kept = [row for row, length in enumerate(lengths.tolist()) if length > 0]
        results = [Hypothesis("")] * len(frames)
        if kept:
            first = self.network.proj_out.weight
            chosen = torch.tensor(kept, device=frames.device)
            found = self._decode(
                frames[chosen].to(first.device, first.dtype),
                lengths[chosen].to(first.device),
                frame_rate,
                [languages[row] if languages else None for row in kept],
            )
            for row, hypothesis in zip(kept, found, strict=True):
                results[row] = hypothesis
        return results

    def _decode(
        self, frames: Frames, lengths: Lengths, frame_rate: float, said: Sequence[str | None]
    ) -> list[Hypothesis]:
        options, vocabulary = self.options, self.vocabulary
        languages = self._languages(frames, lengths, said)
        prompts = torch.tensor(
            [
                vocabulary.prompt(language, options.task, options.without_timestamps)
                for language, _ in languages
            ],
            device=frames.device,
        )
        seeds = lengths.tolist()

        def run(rows: Sequence[int], temperature: float) -> list[Draft]:
            at = torch.tensor(list(rows), device=frames.device)
            wanted = [seeds[row] for row in rows]
            drafts = self.generator.run(frames[at], lengths[at], prompts[at], temperature, wanted)
            for row, draft in zip(rows, drafts, strict=True):
                seeds[row] = derive_seed(seeds[row], *draft.tokens)
            return drafts

        outcomes = decode_with_fallback(
            len(frames), run, lambda draft: vocabulary.text(draft.tokens), options
        )
        drafts = [draft for draft, _ in outcomes]
        words = self._words(frames, lengths, drafts, languages, frame_rate)
        return [
            self._hypothesis(draft, verdict, row_words, language)
            for (draft, verdict), row_words, language in zip(
                outcomes, words, languages, strict=True
            )
        ]

    def _languages(
        self, frames: Frames, lengths: Lengths, said: Sequence[str | None]
    ) -> list[tuple[str | None, float | None]]:
        """Return each row's language and, where it was detected, its probability."""
        known = list(self.vocabulary.languages)
        language = self.options.language or self.vocabulary.default_language
        if language is None and len(known) == 1:
            language = known[0]
        if language is not None or not known:
            return [(language, None)] * len(frames)
        codes = [code.split("-")[0].lower() if code else None for code in said]
        found: list[tuple[str | None, float | None]] = [
            (code if code in known else None, None) for code in codes
        ]
        unknown = [row for row, (code, _) in enumerate(found) if code is None]
        if unknown:
            at = torch.tensor(unknown, device=frames.device)
            heard = self.generator.detect(frames[at], lengths[at])
            for row, pair in zip(unknown, heard, strict=True):
                found[row] = pair
        return found

    def _words(
        self,
        frames: Frames,
        lengths: Lengths,
        drafts: Sequence[Draft],
        languages: Sequence[tuple[str | None, float | None]],
        frame_rate: float,
    ) -> list[tuple[Word, ...]]:
        texts = [self.vocabulary.text_tokens(draft.tokens) for draft in drafts]
        rows = [row for row, text in enumerate(texts) if text]
        found: list[tuple[Word, ...]] = [()] * len(drafts)
        if not (self.options.word_timestamps and self.alignment_heads and rows):
            return found
        at = torch.tensor(rows, device=frames.device)
        spoken = [languages[row][0] for row in rows]
        words = align(
            self.generator,
            frames[at],
            lengths[at],
            [self.vocabulary.prompt(one, self.options.task, True) for one in spoken],
            [texts[row] for row in rows],
            self.alignment_heads,
            spoken,
            frame_rate,
        )
        for row, row_words in zip(rows, words, strict=True):
            found[row] = row_words
        return found

    def _hypothesis(
        self,
        draft: Draft,
        verdict: Verdict,
        words: tuple[Word, ...],
        language: tuple[str | None, float | None],
    ) -> Hypothesis:
        text = self.vocabulary.text(draft.tokens)
        details: dict[str, Any] = {
            "token_probabilities": [round(float(torch.tensor(p).exp()), 4) for p in draft.log_probs]
        }
        if language[0] is not None:
            details["language"] = language[0]
        if language[1] is not None:
            details["language_probability"] = round(language[1], 4)
        if verdict.silent:
            details["raw_text"] = text.strip()
        elif not self.options.without_timestamps:
            details["segments"] = self._segments(draft.tokens)
        return Hypothesis(
            text="" if verdict.silent else text.strip(),
            tokens=() if verdict.silent else tuple(self.vocabulary.text_tokens(draft.tokens)),
            words=() if verdict.silent else words,
            avg_logprob=draft.avg_logprob,
            no_speech_prob=draft.no_speech_prob,
            compression_ratio=compression_ratio(text),
            temperature=draft.temperature,
            flags=verdict.flags,
            details=details,
        )

    def _segments(self, tokens: Sequence[int]) -> list[dict[str, Any]]:
        """Cut tokens at timestamps; an end that was not written is None."""
        segments: list[dict[str, Any]] = []
        start, text = 0.0, list[int]()
        for token in tokens:
            if not self.vocabulary.is_timestamp(token):
                text.append(token)
                continue
            time = round((token - (self.vocabulary.timestamp_begin or 0)) * 0.02, 2)
            if text:
                spelled = self.vocabulary.text(text).strip()
                segments.append({"start": start, "end": time, "text": spelled})
            start, text = time, []
        if text:
            spelled = self.vocabulary.text(text).strip()
            segments.append({"start": start, "end": None, "text": spelled})
        return segments


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer.json; save the model's fast tokenizer beside its weights."
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception on a damaged file
        raise CheckpointError(f"{path} is damaged: {error}") from error


DECODER = WhisperDecoder

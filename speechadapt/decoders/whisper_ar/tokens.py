"""What a Whisper model's tokens mean: text, languages, tasks, no speech, timestamps.

The numbers come from `generation_config.json`, the spelling from the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from speechadapt.core.errors import CheckpointError, ConfigError, near_misses

_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of one model.

    Args:
        tokenizer: Spells text tokens.
        start: `<|startoftranscript|>`.
        end: `<|endoftext|>`.
        no_timestamps: `<|notimestamps|>`; the ids above it are the timestamps from 0 on. None
            where the model has no timestamps.
        no_speech: `<|nospeech|>`, None where the model has none.
        languages: Token by language code; empty for a model of one language.
        tasks: Token by task; empty for a model of one task.
        default_language: The language where none is asked for; None detects it.
        suppressed: Tokens never written.
        suppressed_first: Tokens never written first.
    """

    tokenizer: Tokenizer
    start: int
    end: int
    no_timestamps: int | None
    no_speech: int | None
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    default_language: str | None = None
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @cached_property
    def specials(self) -> frozenset[int]:
        """Every token spelled `<|...|>`."""
        return frozenset(
            index
            for token, index in self.tokenizer.get_vocab(with_added_tokens=True).items()
            if token.startswith("<|") and token.endswith("|>")
        )

    @property
    def timestamp_begin(self) -> int | None:
        """Token of the time 0."""
        return None if self.no_timestamps is None else self.no_timestamps + 1

    def is_timestamp(self, token: int) -> bool:
        """Tell whether a token is a time."""
        return self.timestamp_begin is not None and token >= self.timestamp_begin

    def text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """Drop every special token and timestamp."""
        return [
            token
            for token in tokens
            if token not in self.specials and token != self.end and not self.is_timestamp(token)
        ]

    def text(self, tokens: Sequence[int]) -> str:
        """Spell tokens; special ones and timestamps are passed over."""
        return str(self.tokenizer.decode(self.text_tokens(tokens), skip_special_tokens=True))

    def prompt(self, language: str | None, task: str, without_timestamps: bool) -> list[int]:
        """Return the tokens the decoder starts from.

        Args:
            language: A code of `languages`; passed over by a model without language tokens.
            task: `transcribe` or `translate`.
            without_timestamps: Ask for text alone.
        """
        prompt = [self.start]
        if self.languages and language is not None:
            prompt.append(self.languages[language])
            prompt += [self.tasks[task]] if task in self.tasks else []
        if without_timestamps and self.no_timestamps is not None:
            prompt.append(self.no_timestamps)
        return prompt

    def check(self, language: str | None, task: str) -> None:
        """Refuse a language or task the model does not have.

        Raises:
            ConfigError: Language or task is unknown to the model; near misses are named.
        """
        if language is not None and self.languages and language not in self.languages:
            misses = near_misses(language, self.languages)
            raise ConfigError(f"the model does not know the language '{language}'.{misses}")
        if language not in (None, "en") and not self.languages:
            raise ConfigError(f"language '{language}' was asked of a model that has one language.")
        if task == "translate" and "translate" not in self.tasks:
            raise ConfigError("task 'translate' was asked of a model that only transcribes.")


def read_vocabulary(generation: Any, tokenizer: Tokenizer) -> Vocabulary:
    """Put a model's tokens together.

    Args:
        generation: The model's transformers `GenerationConfig`.
        tokenizer: The model's tokenizer.

    Raises:
        CheckpointError: The start or end token is not named, or languages are named without ids.
    """
    named: dict[str, Any] = generation.to_dict()
    start, end = named.get("decoder_start_token_id"), named.get("eos_token_id")
    if start is None or end is None:
        raise CheckpointError(
            "generation_config.json must name decoder_start_token_id and eos_token_id; "
            f"found {start} and {end}."
        )
    multilingual = named.get("is_multilingual", True)
    table = (named.get("lang_to_id") or {}) if multilingual else {}
    languages = {token.strip("<|>"): int(index) for token, index in table.items()}
    default = str(named.get("language") or "").strip("<|>")
    no_timestamps = named.get("no_timestamps_token_id")
    if no_timestamps is None:
        no_timestamps = tokenizer.token_to_id("<|notimestamps|>")
    found = (tokenizer.token_to_id(token) for token in _NO_SPEECH)
    return Vocabulary(
        tokenizer=tokenizer,
        start=int(start),
        end=int(end[0] if isinstance(end, list) else end),
        no_timestamps=no_timestamps,
        no_speech=next((token for token in found if token is not None), None),
        languages=languages,
        default_language=default if default in languages else None,
        tasks=dict(named.get("task_to_id") or {}) if multilingual else {},
        suppressed=tuple(named.get("suppress_tokens") or ()),
        suppressed_first=tuple(named.get("begin_suppress_tokens") or ()),
    )


def special_tokens(languages: Sequence[str], window_s: float) -> list[str]:
    """List the special tokens of a Whisper tokenizer in Whisper's order, timestamps included.

    Args:
        languages: Codes of its languages.
        window_s: Seconds of its window; timestamps are 0.02 s apart.
    """
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in languages),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{index * 0.02:.2f}|>" for index in range(round(window_s / 0.02) + 1)),
    ]

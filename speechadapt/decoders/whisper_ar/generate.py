"""One pass of generation over a batch of clips, at one temperature.

The loop is transformers' own. What is ours: each row draws its samples from its own seed, so its
text does not hang on the batch it is in; token log-probabilities are kept; and at native length
the cross-attention of every row is masked past its last frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperForConditionalGeneration,
    WhisperTimeStampLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from speechadapt.core.seed import derive_seed
from speechadapt.core.shapes import Frames, Lengths, Tokens, length_mask
from speechadapt.decoders.whisper_ar.options import WhisperOptions
from speechadapt.decoders.whisper_ar.tokens import Vocabulary

_TIMESTAMP_STEP_S = 0.02


@dataclass(frozen=True)
class Draft:
    """What one pass made of one clip.

    Args:
        tokens: What was written, without the prompt and the end token.
        log_probs: Natural log-probability of each token, and of the end where it was reached.
        no_speech_prob: Probability of `<|nospeech|>` as the first token; None without such a token.
        temperature: The pass's temperature.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    no_speech_prob: float | None
    temperature: float

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability per token, the end counted as one."""
        return sum(self.log_probs) / (len(self.tokens) + 1)


class _Chooser(LogitsProcessor):  # type: ignore[misc]
    """Picks each row's next token, by its own random numbers, and keeps its log-probability."""

    def __init__(self, temperature: float, draws: Float[Tensor, "rows steps"]) -> None:
        self.temperature = temperature
        self.draws = draws
        self.log_probs: list[Float[Tensor, " rows"]] = []

    def __call__(
        self, input_ids: Tokens, scores: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        values = scores.float()
        if self.temperature == 0:
            chosen = values.argmax(-1, keepdim=True)
        else:
            cumulated = (values.double() / self.temperature).softmax(-1).cumsum(-1)
            draw = self.draws[:, len(self.log_probs), None].to(cumulated)
            chosen = torch.searchsorted(cumulated, draw * cumulated[:, -1:], right=True)
            chosen = chosen.clamp(max=values.shape[-1] - 1)
        self.log_probs.append(values.gather(-1, chosen)[:, 0] - values.logsumexp(-1))
        if self.temperature == 0:
            return scores
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


class Generator:
    """Writes tokens for a batch of encoder frames.

    Args:
        network: A Whisper model; only its decoder is used.
        vocabulary: Its tokens.
        options: How to decode.
    """

    def __init__(
        self,
        network: WhisperForConditionalGeneration,
        vocabulary: Vocabulary,
        options: WhisperOptions,
    ) -> None:
        self.network = network
        self.vocabulary = vocabulary
        self.options = options

    def detect(self, frames: Frames, lengths: Lengths) -> list[tuple[str, float]]:
        """Return each clip's likeliest language and its probability among the model's."""
        start = torch.full((len(frames), 1), self.vocabulary.start, device=frames.device)
        logits = self.forward(frames, lengths, start)[:, 0]
        codes = list(self.vocabulary.languages)
        among = logits[:, list(self.vocabulary.languages.values())].softmax(-1)
        best = among.max(-1)
        return [
            (codes[index], value)
            for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def forward(
        self, frames: Frames, lengths: Lengths, tokens: Tokens
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Return float32 logits after each token, without a cache."""
        with self.masked(lengths, frames.shape[1]):
            output = self.network(
                encoder_outputs=BaseModelOutput(last_hidden_state=frames),
                decoder_input_ids=tokens,
                use_cache=False,
            )
        logits: Tensor = output.logits
        return logits.float()

    def run(
        self,
        frames: Frames,
        lengths: Lengths,
        prompts: Int[Tensor, "batch prompt"],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[Draft]:
        """Write one draft per clip.

        Args:
            frames: Encoder frames.
            lengths: Valid frames per row.
            prompts: Tokens to start from.
            temperature: 0 takes the likeliest token or searches by beams; above, the likeliest of
                `best_of` samples is kept.
            seeds: One per row, for its samples.
        """
        beams = (self.options.beam_size or 1) if temperature == 0 else 1
        copies = self.options.best_of if temperature > 0 else 1
        rows = [
            derive_seed(seed, copy, round(temperature * 1000))
            for seed in seeds
            for copy in range(copies)
        ]
        frames, prompts, lengths = (
            value.repeat_interleave(copies, dim=0) for value in (frames, prompts, lengths)
        )
        steps = self._steps(prompts.shape[1])
        chooser = _Chooser(temperature, _draws(rows, steps if temperature > 0 else 0))
        processors = self._filters(prompts.shape[1])
        if beams == 1:
            processors.append(chooser)
        with self.masked(lengths, frames.shape[1]), self._first_logits() as first:
            sequences: Tensor = GenerationMixin.generate(
                self.network,
                generation_config=self._config(steps, beams),
                logits_processor=processors,
                encoder_outputs=BaseModelOutput(last_hidden_state=frames),
                decoder_input_ids=prompts,
                # Whisper's decoder passes it over; without one transformers warns of a guess.
                attention_mask=torch.ones(frames.shape[:2], device=frames.device),
            )
        written = sequences[:, prompts.shape[1] :]
        if beams == 1:
            log_probs = torch.stack(chooser.log_probs, dim=1)
        else:
            log_probs = self._rescored(frames, lengths, prompts, written)
        silence = self._no_speech(first[0][::beams, 0])
        drafts = [
            self._draft(*row, temperature)
            for row in zip(written.tolist(), log_probs.tolist(), silence, strict=True)
        ]
        groups = (drafts[at : at + copies] for at in range(0, len(drafts), copies))
        return [max(group, key=lambda draft: draft.avg_logprob) for group in groups]

    @contextmanager
    def masked(self, lengths: Lengths, size: int) -> Iterator[None]:
        """Hide frames past each row's length from the cross-attention, at native length.

        Beams of a row follow one another, so a mask of fewer rows is repeated in place.
        """
        if self.options.padding == "full":
            yield
            return
        mask = torch.zeros(len(lengths), 1, 1, size, device=lengths.device, dtype=self._dtype)
        valid = length_mask(lengths, size)[:, None, None, :]
        mask = mask.masked_fill(~valid, torch.finfo(self._dtype).min)

        def hide(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            repeats = args[0].shape[0] // mask.shape[0]
            return args, kwargs | {"attention_mask": mask.repeat_interleave(repeats, dim=0)}

        layers = self.network.model.decoder.layers
        handles = [
            layer.encoder_attn.register_forward_pre_hook(hide, with_kwargs=True) for layer in layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.network.proj_out.weight.dtype
        return dtype

    @contextmanager
    def _first_logits(self) -> Iterator[list[Tensor]]:
        """Keep the logits of the first pass, which covers the whole prompt."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not kept:
                kept.append(output)

        handle = self.network.proj_out.register_forward_hook(keep)
        try:
            yield kept
        finally:
            handle.remove()

    def _no_speech(self, logits: Float[Tensor, "rows vocabulary"]) -> list[float | None]:
        token = self.vocabulary.no_speech
        if token is None:
            return [None] * len(logits)
        values: list[float | None] = logits.float().softmax(-1)[:, token].tolist()
        return values

    def _steps(self, prompt: int) -> int:
        positions = int(self.network.config.max_target_positions)
        return min(self.options.sample_len or positions // 2, positions - prompt)

    def _config(self, steps: int, beams: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=steps,
            num_beams=beams,
            do_sample=False,
            cache_implementation="static" if self.options.cache == "static" else None,
            length_penalty=self.options.length_penalty if beams > 1 else None,
            eos_token_id=self.vocabulary.end,
            pad_token_id=self.vocabulary.end,
            decoder_start_token_id=self.vocabulary.start,
        )

    def _filters(self, begin: int) -> LogitsProcessorList:
        vocabulary, filters = self.vocabulary, LogitsProcessorList()
        device = self.network.proj_out.weight.device
        if vocabulary.suppressed:
            filters.append(SuppressTokensLogitsProcessor(list(vocabulary.suppressed), device))
        if vocabulary.suppressed_first:
            first = list(vocabulary.suppressed_first)
            filters.append(SuppressTokensAtBeginLogitsProcessor(first, begin, device))
        if not self.options.without_timestamps and vocabulary.no_timestamps is not None:
            rules = GenerationConfig(eos_token_id=vocabulary.end, bos_token_id=vocabulary.end)
            rules.no_timestamps_token_id = vocabulary.no_timestamps
            latest = round(self.options.max_initial_timestamp / _TIMESTAMP_STEP_S)
            rules.max_initial_timestamp_index = latest
            filters.append(WhisperTimeStampLogitsProcessor(rules, begin_index=begin))
        return filters

    def _rescored(
        self,
        frames: Frames,
        lengths: Lengths,
        prompts: Int[Tensor, "batch prompt"],
        written: Int[Tensor, "batch written"],
    ) -> Float[Tensor, "batch written"]:
        """Return the log-probability of each written token under the same filters."""
        begin = prompts.shape[1]
        tokens = torch.cat([prompts, written], dim=1)
        logits = self.forward(frames, lengths, tokens[:, :-1])[:, begin - 1 :]
        filters = self._filters(begin)
        steps = [
            filters(tokens[:, : begin + step], logits[:, step]).log_softmax(-1)
            for step in range(written.shape[1])
        ]
        return torch.stack(steps, dim=1).gather(-1, written[..., None])[..., 0]

    def _draft(
        self,
        written: Sequence[int],
        log_probs: Sequence[float],
        no_speech_prob: float | None,
        temperature: float,
    ) -> Draft:
        end = self.vocabulary.end
        count = list(written).index(end) if end in written else len(written)
        return Draft(
            tokens=tuple(written[:count]),
            log_probs=tuple(log_probs[: count + 1]),
            no_speech_prob=no_speech_prob,
            temperature=temperature,
        )


def _draws(seeds: Sequence[int], steps: int) -> Float[Tensor, "rows steps"]:
    rows = [
        torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)

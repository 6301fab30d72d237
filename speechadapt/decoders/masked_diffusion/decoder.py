"""The masked-diffusion decoder: candidates for an utterance in a few steps, and one of them kept.

A text that may be wrong is flagged: `truncated` (it fills every position), `logprob` (improbable),
`compression` (it repeats itself), `disagreement` (the candidates say different things).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from speechadapt.core.errors import CheckpointError
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Decoder, Hypothesis, Word, compression_ratio
from speechadapt.decoders.masked_diffusion.network import Condition, DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.selection import (
    Choice,
    expected_errors,
    select,
)
from speechadapt.decoders.masked_diffusion.store import is_diffusion, read_folder
from speechadapt.decoders.masked_diffusion.timing import place_words
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary
from speechadapt.decoders.masked_diffusion.writer import Draft, write
from speechadapt.decoders.options import parse_options
from speechadapt.engines.reuse import Share


class DiffusionDecoder(Decoder):
    """Masked diffusion over text, conditioned on frames.

    Args:
        network: Its network, which takes frames.
        vocabulary: Its tokens.
        options: How to decode.

    Attributes:
        share: Processes, `options.ahead` of them, that decode the same frames and compute the steps
            with one another; None computes them all in this process.

    Raises:
        CheckpointError: Network and vocabulary differ in size, the network takes no frames, or the
            options ask for a length head that it lacks.
    """

    name = "masked_diffusion"

    def __init__(
        self,
        network: DiffusionNetwork,
        vocabulary: Vocabulary,
        options: DiffusionOptions | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.vocabulary = vocabulary
        self.options = options or DiffusionOptions()
        self.share: Share | None = None
        if vocabulary.size != network.shape.vocab_size:
            raise CheckpointError(
                f"the vocabulary has {vocabulary.size} tokens, the network writes "
                f"{network.shape.vocab_size}. They belong to different models."
            )
        if not network.shape.hears:
            raise CheckpointError(
                "a recogniser was asked of a network of text alone; train it on frames first "
                "(recipe diffusion/adapter)."
            )
        if self.options.length_head and network.length_head is None:
            raise CheckpointError("length_head was asked of a model that has none; leave it out.")

    @classmethod
    def claims(cls, config: Mapping[str, Any]) -> bool:
        """Tell whether the folder holds a masked-diffusion decoder."""
        return is_diffusion(config)

    @classmethod
    def from_folder(cls, folder: Path, options: Mapping[str, Any]) -> DiffusionDecoder:
        """Load network and tokenizer of a folder, in float32 on the CPU.

        Raises:
            CheckpointError: A file is missing, damaged, cut short or another model's, or the model
                is of text alone.
            ConfigError: An option is unknown or out of range.
        """
        wanted = parse_options(DiffusionOptions, options, cls.name)
        return cls(*read_folder(folder), wanted).eval()

    @classmethod
    def tiny(cls, dim: int) -> DiffusionDecoder:
        """Make one with random weights and a byte-level tokenizer."""
        vocabulary = tiny_vocabulary()
        options = DiffusionOptions(num_candidates=3, num_steps=3, max_tokens=12)
        return cls(tiny_network(vocabulary, dim), vocabulary, options).eval()

    def settings(self) -> dict[str, Any]:
        """Return the options and the tokens that have a role."""
        return asdict(self.options) | {
            "ratios": list(self.options.ratios),
            "start_id": self.vocabulary.start_id,
            "pad_id": self.vocabulary.pad_id,
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

        `details` holds `confidence`, `disagreement`, `positions`, `passes`, and on request
        `candidates`.
        """
        kept = [row for row, length in enumerate(lengths.tolist()) if length > 0]
        results = [Hypothesis("")] * len(frames)
        if not kept:
            return results
        first = self.network.head.weight
        chosen = torch.tensor(kept, device=frames.device)
        heard = frames[chosen].to(first.device, first.dtype)
        counts = lengths[chosen].to(first.device)
        parts = self.network, self.vocabulary, heard, counts, self.options
        drafts, condition = write(*parts, self.share)
        for at, (row, draft) in enumerate(zip(kept, drafts, strict=True)):
            choice = select(draft.candidates, self.options)
            words = self._words(choice, condition, at, frame_rate)
            results[row] = self._hypothesis(draft, choice, words)
        return results

    def _words(
        self, choice: Choice, condition: Condition, row: int, frame_rate: float
    ) -> tuple[Word, ...]:
        if not self.options.word_timestamps:
            return ()
        alone = condition.select([row])
        return place_words(self.network, self.vocabulary, choice.words, alone, frame_rate)

    def _hypothesis(self, draft: Draft, choice: Choice, words: tuple[Word, ...]) -> Hypothesis:
        best = draft.candidates[choice.best]
        text = " ".join(word.text for word in choice.words)
        sure = [one for word in choice.words for one in word.log_probs]
        if best.end_log_prob is not None:
            sure.append(best.end_log_prob)
        average = sum(sure) / len(sure) if sure else 0.0
        details: dict[str, Any] = {
            "confidence": round(best.confidence, 4),
            "disagreement": round(choice.disagreement, 4),
            "positions": draft.positions,
            "passes": draft.passes,
        }
        if self.options.keep_candidates:
            details["candidates"] = _listed(draft)
        return Hypothesis(
            text=text,
            tokens=tuple(token for word in choice.words for token in word.tokens),
            words=words,
            avg_logprob=average,
            no_speech_prob=draft.empty_prob,
            compression_ratio=compression_ratio(text),
            temperature=self.options.temperature,
            flags=self._flags(text, average, best.end_log_prob is None, choice.disagreement),
            details=details,
        )

    def _flags(
        self, text: str, average: float, truncated: bool, disagreement: float
    ) -> tuple[str, ...]:
        options = self.options
        least, most = options.logprob_threshold, options.compression_ratio_threshold
        furthest = options.disagreement_threshold
        found = (
            ("truncated", truncated),
            ("logprob", least is not None and average < least),
            ("compression", most is not None and compression_ratio(text) > most),
            ("disagreement", furthest is not None and disagreement > furthest),
        )
        return tuple(name for name, is_so in found if is_so)


def _listed(draft: Draft) -> Sequence[dict[str, Any]]:
    risks = expected_errors([one.keys for one in draft.candidates])
    return [
        {
            "text": one.text,
            "confidence": round(one.confidence, 4),
            "expected_errors": round(risk, 4),
        }
        for one, risk in zip(draft.candidates, risks, strict=True)
    ]


DECODER = DiffusionDecoder

"""The CTC decoder: a linear head over encoder frames, then greedy or prefix beam search.

Greedy takes the best label of each frame, merges runs and drops blanks. The beam search adds up all
paths of a text and can use a word list and a word n-gram (see `beam`). Whichever found the text,
its word times come from a forced alignment, and its average log-probability from the CTC forward
algorithm over all paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.core.files import hash_file
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Decoder, Hypothesis, compression_ratio
from speechadapt.decoders.ctc.align import align_words
from speechadapt.decoders.ctc.beam import PrefixBeamSearch
from speechadapt.decoders.ctc.ngram import NgramModel, read_arpa, train_ngram
from speechadapt.decoders.options import parse_options
from speechadapt.decoders.weights import read_tensors
from speechadapt.text.alphabet import Alphabet, english, read_alphabet


@dataclass(frozen=True)
class CtcOptions:
    """How a CTC decoder searches.

    Args:
        beam_size: Prefixes kept; 1 is greedy. None means 64 with `lm` or `word_list`, else 1.
        lm: A word n-gram: an ARPA file (`.arpa`), or a text file it is trained from (`.txt`).
        word_list: A text file of the only words allowed, white space between them; `lm` means the
            words of the n-gram.
        alpha: Weight of the n-gram's natural log-probability.
        beta: Bonus for each word.
        lm_order: Length of the n-grams trained from a text file.
        prune_logprob: Labels below this natural log-probability are not tried at a frame.
        word_timestamps: Align the words.
    """

    beam_size: int | None = None
    lm: str | None = None
    word_list: str | None = None
    alpha: float = 0.5
    beta: float = 1.0
    lm_order: int = 3
    prune_logprob: float = -5.0
    word_timestamps: bool = True

    def __post_init__(self) -> None:
        if self.beam_size is not None and self.beam_size < 1:
            raise ConfigError(f"beam_size must be 1 or more, got {self.beam_size}.")
        if self.beam_size == 1 and (self.lm or self.word_list):
            raise ConfigError("lm and word_list need a beam search: beam_size is 1, set 2 or more.")
        if self.word_list == "lm" and not self.lm:
            raise ConfigError("word_list=lm takes the n-gram's words, but no lm is given.")
        if self.prune_logprob >= 0:
            raise ConfigError(f"prune_logprob must be below 0, got {self.prune_logprob}.")

    @property
    def prefixes(self) -> int:
        """The beam size that holds; 1 is greedy."""
        if self.beam_size is not None:
            return self.beam_size
        return 64 if self.lm or self.word_list else 1


class CtcDecoder(Decoder):
    """A linear CTC head with its alphabet.

    Args:
        alphabet: One symbol per output of the head.
        dim: Width of the frames.
        options: How to search.
    """

    name = "ctc"

    def __init__(self, alphabet: Alphabet, dim: int, options: CtcOptions | None = None) -> None:
        super().__init__()
        self.alphabet = alphabet
        self.options = options or CtcOptions()
        self.head = nn.Linear(dim, len(alphabet))
        self._beam_search = _build_search(alphabet, self.options)

    @classmethod
    def claims(cls, config: Mapping[str, Any]) -> bool:
        """Tell whether the folder's architecture ends in a CTC head."""
        return any(name.endswith("ForCTC") for name in config.get("architectures") or ())

    @classmethod
    def from_folder(cls, folder: Path, options: Mapping[str, Any]) -> CtcDecoder:
        """Load `lm_head` and the alphabet of a `...ForCTC` folder, in float32 on the CPU.

        A head wider than the vocabulary (published models count added tokens) gets symbols that
        are never written.

        Raises:
            CheckpointError: Head or vocabulary is missing, or the vocabulary is the larger.
            ConfigError: An option is unknown or out of range.
        """
        alphabet = read_alphabet(folder)
        weights = read_tensors(folder, "lm_head.")
        if set(weights) != {"lm_head.weight", "lm_head.bias"}:
            raise CheckpointError(f"{folder}: a CTC head has weight and bias, got {set(weights)}.")
        symbols, dim = weights["lm_head.weight"].shape
        if symbols < len(alphabet):
            raise CheckpointError(
                f"{folder}: vocab.json has {len(alphabet)} symbols, the head only {symbols}."
            )
        decoder = cls(
            _widened(alphabet, symbols), dim, parse_options(CtcOptions, options, cls.name)
        )
        decoder.head.load_state_dict(
            {name.removeprefix("lm_head."): value.float() for name, value in weights.items()}
        )
        return decoder.eval()

    @classmethod
    def tiny(cls, dim: int) -> CtcDecoder:
        """Make one with random weights and the English alphabet."""
        decoder = cls(english(), dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            nn.init.normal_(decoder.head.weight)
        return decoder.eval()

    def settings(self) -> dict[str, Any]:
        """Return the options, files by the hash of their content, and the alphabet."""
        settings = asdict(self.options) | {"symbols": list(self.alphabet.symbols)}
        for name in ("lm", "word_list"):
            value = settings[name]
            if value is not None and value != "lm":
                settings[name] = hash_file(Path(value))
        return settings

    def log_probs(self, frames: Frames) -> Float[Tensor, "batch frames symbols"]:
        """Return the natural log-probability of every symbol at every frame, in float32."""
        logits: Tensor = self.head(frames.to(self.head.weight.dtype))
        return logits.float().log_softmax(-1)

    @torch.inference_mode()
    def decode(
        self,
        frames: Frames,
        lengths: Lengths,
        frame_rate: float,
        languages: Sequence[str | None] | None = None,
    ) -> list[Hypothesis]:
        """Write one hypothesis per row; a row without frames gets the empty text.

        `avg_logprob` is the natural log-probability of the text over all its paths, per label, the
        end counted as one.
        """
        log_probs = self.log_probs(frames).cpu()
        rows = [log_probs[row, :length] for row, length in enumerate(lengths.tolist())]
        labels = [self._search(row) for row in rows]
        totals = _sequence_log_probs(rows, labels, self.alphabet.blank_id)
        return [
            self._hypothesis(row, row_labels, total, frame_rate)
            for row, row_labels, total in zip(rows, labels, totals, strict=True)
        ]

    def _search(self, log_probs: Float[Tensor, "frames symbols"]) -> list[int]:
        if self._beam_search is not None:
            return list(self._beam_search.search(log_probs.numpy())[0].labels)
        path = (label for label, _ in groupby(log_probs.argmax(-1).tolist()))
        labels = [label for label in path if label not in self.alphabet.special_ids]
        return _canonical(labels, self.alphabet.delimiter_id)

    def _hypothesis(
        self,
        log_probs: Float[Tensor, "frames symbols"],
        labels: list[int],
        total: float,
        frame_rate: float,
    ) -> Hypothesis:
        text = self.alphabet.decode(labels, collapse=False)
        wanted = self.options.word_timestamps
        return Hypothesis(
            text=text,
            tokens=tuple(labels),
            words=align_words(log_probs, labels, self.alphabet, frame_rate) if wanted else (),
            avg_logprob=total / (len(labels) + 1),
            compression_ratio=compression_ratio(text),
        )


def _build_search(alphabet: Alphabet, options: CtcOptions) -> PrefixBeamSearch | None:
    if options.prefixes == 1:
        return None
    model = None if options.lm is None else _load_ngram(options.lm, options.lm_order)
    words: Iterable[str] | None = None
    if options.word_list == "lm" and model is not None:
        words = sorted(model.words)
    elif options.word_list is not None:
        words = _read_text(options.word_list, "word_list").split()
    return PrefixBeamSearch(
        alphabet,
        beam_size=options.prefixes,
        prune_logprob=options.prune_logprob,
        language_model=model,
        alpha=options.alpha,
        beta=options.beta,
        word_list=words,
    )


def _load_ngram(name: str, order: int) -> NgramModel:
    text = _read_text(name, "lm")
    return (
        read_arpa(Path(name)) if name.endswith(".arpa") else train_ngram(text.splitlines(), order)
    )


def _read_text(name: str, option: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}={name} cannot be read: {error}.") from error


def _widened(alphabet: Alphabet, size: int) -> Alphabet:
    extra = tuple(f"<unused_{index}>" for index in range(len(alphabet), size))
    if not extra:
        return alphabet
    return Alphabet(
        alphabet.symbols + extra,
        alphabet.blank,
        alphabet.delimiter,
        alphabet.specials | frozenset(extra),
    )


def _canonical(labels: Sequence[int], delimiter: int) -> list[int]:
    """Drop delimiters at the ends and all but one between words; the text stays the same."""
    kept: list[int] = []
    for label in labels:
        if label != delimiter or (kept and kept[-1] != delimiter):
            kept.append(label)
    return kept[:-1] if kept and kept[-1] == delimiter else kept


def _sequence_log_probs(
    rows: Sequence[Float[Tensor, "_ symbols"]], labels: Sequence[Sequence[int]], blank: int
) -> list[float]:
    """Return the natural log-probability of each row's labels over all their paths."""
    totals: list[float] = []
    for row, row_labels in zip(rows, labels, strict=True):
        if row.shape[0] == 0:
            totals.append(0.0)
            continue
        loss = nn.functional.ctc_loss(
            row[:, None],
            torch.tensor([list(row_labels)], dtype=torch.long),
            torch.tensor([row.shape[0]]),
            torch.tensor([len(row_labels)]),
            blank=blank,
            reduction="sum",
        )
        totals.append(-loss.item())
    return totals


DECODER = CtcDecoder

"""Word n-grams: trained from lines of text by Kneser-Ney smoothing, kept in ARPA files.

The model is in back-off form: a seen n-gram has its interpolated probability, an unseen one that of
its shorter context times the context's back-off weight. Over every context the probabilities of all
words, the end and the unknown word sum to one. Logarithms are natural inside and base 10 on disk.

Source: Kneser and Ney 1995; interpolation as in Chen and Goodman 1999, sections 2.7 and 3.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.core.files import atomic_write_text

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0  # base-10 logarithm ARPA files write for "never", as for the start token

Gram = tuple[str, ...]


@dataclass(frozen=True)
class NgramModel:
    """A back-off n-gram model over words.

    Args:
        order: Length of its longest n-grams, 1 or more.
        log_probs: Natural log-probability of each n-gram's last word after the others.
        backoffs: Natural logarithm of each context's back-off weight; 0 where absent.
    """

    order: int
    log_probs: Mapping[Gram, float]
    backoffs: Mapping[Gram, float]

    @property
    def words(self) -> frozenset[str]:
        """The words it knows, without its three markers."""
        known = {gram[0] for gram in self.log_probs if len(gram) == 1}
        return frozenset(known - {START, END, UNKNOWN})

    def start(self) -> Gram:
        """Return the context at the start of a sentence."""
        return (START,)[: self.order - 1]

    def step(self, context: Gram, word: str) -> tuple[float, Gram]:
        """Score a word and move on.

        Args:
            context: The words before it, at most `order - 1` of them.
            word: Any word; one the model does not know is scored as the unknown word.

        Returns:
            The natural log-probability, minus infinity where the model excludes the word, and the
            context of the next word.
        """
        known = word if (word,) in self.log_probs else UNKNOWN
        full = (*context, known)
        after = full[1:] if len(full) >= self.order else full
        return self._log_prob(full), after

    def finish(self, context: Gram) -> float:
        """Return the natural log-probability that the sentence ends here."""
        return self._log_prob((*context, END))

    def score(self, text: str) -> float:
        """Return the natural log-probability of a whole sentence, its end included."""
        total, context = 0.0, self.start()
        for word in text.split():
            value, context = self.step(context, word)
            total += value
        return total + self.finish(context)

    def _log_prob(self, gram: Gram) -> float:
        weight = 0.0
        while gram:
            if gram in self.log_probs:
                return weight + self.log_probs[gram]
            weight += self.backoffs.get(gram[:-1], 0.0)
            gram = gram[1:]
        return -math.inf


def train_ngram(lines: Iterable[str], order: int = 3) -> NgramModel:
    """Train an interpolated Kneser-Ney model.

    Shorter n-grams are counted by the number of different words they follow, except those at the
    start of a sentence. One discount per length, `n1 / (n1 + 2 n2)`, or 0.5 where a small text
    leaves it undefined. The unknown word gets its share from the uniform distribution below the
    unigrams.

    Args:
        lines: One sentence a line, words apart by white space; empty lines are passed over.
        order: Length of the longest n-grams, 1 to 5.

    Raises:
        ConfigError: The order is out of range.
        DataError: There is no word in the text, or one is spelled like a marker.
    """
    if not 1 <= order <= 5:
        raise ConfigError(f"an n-gram's order must be between 1 and 5, got {order}.")
    sentences = [words for line in lines if (words := line.split())]
    if not sentences:
        raise DataError("an n-gram model needs at least one word of text, got none.")
    clash = {word for words in sentences for word in words} & {START, END, UNKNOWN}
    if clash:
        raise DataError(
            f"the text spells {sorted(clash)}, which n-gram models keep for themselves."
        )
    counts = _counts(sentences, order)
    probabilities: dict[Gram, float] = {}
    weights: dict[Gram, float] = {}
    for length in range(1, order + 1):
        _smooth(counts[length], probabilities, weights)
    log_probs = {gram: math.log(value) for gram, value in probabilities.items()}
    log_probs[(START,)] = NEVER * math.log(10)
    return NgramModel(order, log_probs, {gram: math.log(value) for gram, value in weights.items()})


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file.

    Raises:
        DataError: The file is not in ARPA's form; the message names the line.
    """
    log_probs: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    length = order = 0
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            text = line.strip()
            if not text or text.startswith(("\\data", "\\end", "ngram ")):
                continue
            if text.startswith("\\"):
                length = int(text[1]) if text[1:2].isdigit() else 0
                order = max(order, length)
                continue
            fields = text.split()
            try:
                gram = tuple(fields[1 : length + 1])
                log_probs[gram] = float(fields[0]) * math.log(10)
                if len(fields) == length + 2:
                    backoffs[gram] = float(fields[-1]) * math.log(10)
            except (ValueError, IndexError) as error:
                raise DataError(f"{path.name} line {number} is no ARPA entry: {text!r}.") from error
            if length == 0 or len(gram) != length or len(fields) > length + 2:
                raise DataError(f"{path.name} line {number} is no {length}-gram: {text!r}.")
    if not log_probs:
        raise DataError(f"{path.name} holds no n-grams; is it an ARPA file?")
    return NgramModel(order, log_probs, backoffs)


def write_arpa(model: NgramModel, path: Path) -> None:
    """Write an ARPA file, whole or not at all."""
    by_length: dict[int, list[Gram]] = defaultdict(list)
    for gram in sorted(model.log_probs):
        by_length[len(gram)].append(gram)
    lines = ["\\data\\"]
    lines += [f"ngram {length}={len(by_length[length])}" for length in range(1, model.order + 1)]
    for length in range(1, model.order + 1):
        lines += ["", f"\\{length}-grams:"]
        for gram in by_length[length]:
            entry = f"{model.log_probs[gram] / math.log(10):.8g}\t{' '.join(gram)}"
            if gram in model.backoffs:
                entry += f"\t{model.backoffs[gram] / math.log(10):.8g}"
            lines.append(entry)
    atomic_write_text(path, "\n".join([*lines, "", "\\end\\", ""]))


def _counts(sentences: Iterable[list[str]], order: int) -> dict[int, Counter[Gram]]:
    """Count n-grams by length: occurrences at the top, different left neighbours below."""
    raw: dict[int, Counter[Gram]] = {length: Counter() for length in range(1, order + 1)}
    for words in sentences:
        tokens = [START, *words, END]
        for length in range(1, order + 1):
            raw[length].update(
                tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)
            )
    counts = {order: raw[order]}
    for length in range(1, order):
        left = Counter(gram[1:] for gram in raw[length + 1])
        left.update({gram: n for gram, n in raw[length].items() if gram[0] == START})
        counts[length] = left
    counts[1].pop((START,), None)
    return counts


def _smooth(
    counts: Counter[Gram], probabilities: dict[Gram, float], weights: dict[Gram, float]
) -> None:
    """Add the n-grams of one length, interpolated with what is already there."""
    ones = sum(count == 1 for count in counts.values())
    twos = sum(count == 2 for count in counts.values())
    discount = ones / (ones + 2 * twos) if ones and twos else 0.5
    totals: Counter[Gram] = Counter()
    followers: Counter[Gram] = Counter()
    for gram, count in counts.items():
        totals[gram[:-1]] += count
        followers[gram[:-1]] += 1
    share = {context: discount * followers[context] / totals[context] for context in totals}
    if () in share:
        uniform = 1 / (len(counts) + 1)  # every counted word, the end among them, and the unknown
        for gram, count in counts.items():
            probabilities[gram] = (count - discount) / totals[()] + share[()] * uniform
        probabilities[(UNKNOWN,)] = share[()] * uniform
        return
    weights.update(share)
    for gram, count in counts.items():
        lower = probabilities[gram[1:]]
        context = gram[:-1]
        probabilities[gram] = (count - discount) / totals[context] + share[context] * lower

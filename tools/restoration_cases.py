"""Degraded recordings with their clean ones: what restorers are scored on.

Test pairs are those of the pack (`mixtures` by language, `voicebank_pairs`). Dev pairs and spoken
pairs are made here: recordings of the pack degraded by the preset `miipher`, seed 0, with noises
and rooms of the splits they may hear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from eval_pack import SETS, NamedSet, read_set

from speechadapt.audio.degrade import degrade, preset
from speechadapt.core.seed import generator
from speechadapt.data.corpora.pack import load_corpus, read_audio
from speechadapt.metrics.quality_listener import at_rate
from speechadapt.training.adapt.text import Speller

RATE = 16000
PRESET = "miipher"
DEV_CORPORA = ("librispeech_clean", "kerstin24")
# sets whose words the small English models can hear
SPOKEN = {"dev": ("orders/dev", "wake/dev"), "test": ("connected", "orders", "wake/test")}
# corpora in other languages, by the language their texts are written in
FOREIGN = {"ar": "asc", "es": "es_words", "zh-Latn-pinyin": "zh_words"}


@dataclass(frozen=True)
class Case:
    """One degraded recording with its clean one.

    Args:
        name: Its id.
        group: The set it counts to.
        clean: Samples.
        degraded: As many.
        sample_rate: Hz.
        text: What is said; None where nobody wrote it down.
        speaker: Who says it; None where nobody says.
    """

    name: str
    group: str
    clean: np.ndarray
    degraded: np.ndarray
    sample_rate: int
    text: str | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Sounds:
    """What recordings are degraded with.

    Args:
        noises: Signals at `RATE`.
        responses: Room impulse responses at `RATE`.
    """

    noises: Sequence[np.ndarray]
    responses: Sequence[np.ndarray]

    @classmethod
    def read(cls, root: Path, split: str) -> Sounds:
        """Read noises and rooms of one split of the pack."""

        def signals(name: str) -> list[np.ndarray]:
            return [at_rate(*read_audio(root, one), RATE) for one in load_corpus(root, name, split)]

        return cls(signals("noise"), signals("rir"))

    def worsened(self, clean: np.ndarray, name: str) -> np.ndarray:
        """Return a degraded signal of the same length; equal names give equal samples."""
        random = generator("eval", name, 0)
        made = degrade(clean, RATE, preset(PRESET), random, self.noises, self.responses)
        worse = made.signal[: len(clean)]
        return np.pad(worse, (0, len(clean) - len(worse)))


def test_cases(root: Path) -> Iterator[Case]:
    """Yield the pack's pairs, at the clean recording's rate."""
    import soundfile

    for one in load_corpus(root, "mixtures", "test"):
        clean, rate = soundfile.read(root / one.extra["clean_audio"], dtype="float32")
        heard = clean, rate, *read_audio(root, one)
        yield _case(one.id or "", f"mixtures ({one.lang})", one.text, *heard)
    pairs = {one.id: one for one in load_corpus(root, "voicebank_pairs", "test")}
    for one in pairs.values():
        if "clean_id" in one.extra:
            clean, rate = read_audio(root, pairs[one.extra["clean_id"]])
            noisy = read_audio(root, one)
            yield _case(one.id or "", "voicebank_pairs", one.text, clean, rate, *noisy)


def _case(
    name: str,
    group: str,
    text: str | None,
    clean: np.ndarray,
    rate: int,
    given: np.ndarray,
    own: int,
) -> Case:
    degraded = at_rate(given, own, rate)
    shared = min(len(clean), len(degraded))
    return Case(name, group, clean[:shared], degraded[:shared], rate, text)


def dev_cases(root: Path) -> Iterator[Case]:
    """Yield dev recordings with seeded degradations of them."""
    sounds = Sounds.read(root, "train")
    for corpus in DEV_CORPORA:
        for one in load_corpus(root, corpus, "dev"):
            clean = at_rate(*read_audio(root, one), RATE)
            worse = sounds.worsened(clean, one.id or "")
            yield Case(one.id or "", f"{corpus}/dev", clean, worse, RATE, one.text)


def spoken_cases(
    root: Path, split: str, most: int | None = None, language: str = "en"
) -> Iterator[Case]:
    """Yield recordings of known words with seeded degradations of them.

    Args:
        root: The pack.
        split: `dev`, with noises and rooms of training, or `test`, with those of test.
        most: Most recordings of a set, evenly spread; all where None.
        language: `en` or one of `FOREIGN`.
    """
    sounds = Sounds.read(root, "train" if split == "dev" else split)
    spell = Speller(language="" if language == "en" else language)
    for name, chosen in _spoken_sets(split, language).items():
        utterances = read_set(root, chosen)
        step = max(1, len(utterances) // (most or max(1, len(utterances))))
        for one in utterances[::step][:most]:
            clean = at_rate(*read_audio(root, one), RATE)
            worse = sounds.worsened(clean, one.id or "")
            text = one.text if language == "en" else spell(one)
            yield Case(one.id or "", name, clean, worse, RATE, text, one.speaker)


def _spoken_sets(split: str, language: str) -> dict[str, NamedSet]:
    if language == "en":
        return {name: SETS[split][name] for name in SPOKEN[split]}
    corpus = FOREIGN[language]
    return {f"{corpus}/{split}": NamedSet(corpus, split, language)}

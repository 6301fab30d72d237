"""Settings of an adaptation to one's own data, by how much of it there is and what the base can do.

They are where to start from, not what is best: every one of them can be set.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.adapters.catalog import method as method_of
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import read_json
from speechadapt.data.manifest import Utterance
from speechadapt.data.split import seconds_of
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.encoders.base import Encoder
from speechadapt.text.alphabet import Alphabet, read_alphabet
from speechadapt.training.adapt.budget import Size
from speechadapt.training.own.data import Needs, Spell
from speechadapt.training.own.split import Parts

OPEN_WINDOW_S = 30.0
PATIENCE = 5
EVALUATIONS = 20
_DECIBELS_OF_LOG_MEL = 10.0
_DECIBELS_OF_OTHERS = 40.0
_NEW_HEAD_RATE, _KEPT_HEAD_RATE = 3e-3, 1e-3
_NEW_HEAD_PATIENCE = 10  # it writes nothing at all for a while, whatever it has learnt
_FEW_WORDS = 300
_LEAST_STEPS, _MOST_STEPS = 200, 6000


@dataclass(frozen=True)
class Base:
    """What the model to adapt can do.

    Args:
        family: Its encoder's family.
        needs: What it can take.
        window_s: Its window; None where it takes any length.
        parameters: Of its encoder.
        alphabet: What its own CTC head writes; None where it has none.
    """

    family: str
    needs: Needs
    window_s: float | None
    parameters: int
    alphabet: Alphabet | None


def read_base(encoder: Encoder, folder: Path) -> Base:
    """Look at a model.

    Args:
        encoder: Its encoder.
        folder: Its folder.
    """
    alphabet = None
    if CtcDecoder.claims(read_json(folder / "config.json")):
        try:
            alphabet = read_alphabet(folder)
        except CheckpointError:  # a head without letters is as good as none
            alphabet = None
    longest_s = OPEN_WINDOW_S if encoder.window_s is None else encoder.window_s
    return Base(
        encoder.family,
        Needs(encoder.sample_rate, encoder.frame_rate, longest_s),
        encoder.window_s,
        sum(part.numel() for part in encoder.model.parameters()),
        alphabet,
    )


@dataclass(frozen=True)
class Letters:
    """What the adapted model is to write.

    Args:
        alphabet: `base` where its own letters do; `both` where the texts need more; `texts` where
            it has none, or hardly any of those the texts need.
        lacking: Letters of the texts that the base does not write.
    """

    alphabet: str
    lacking: tuple[str, ...]

    @property
    def keeps_head(self) -> bool:
        """Whether training starts from the base's own head."""
        return self.alphabet != "texts"


def choose_letters(own: Alphabet | None, rows: Sequence[Utterance], spell: Spell) -> Letters:
    """Decide whether the base's letters will do.

    Args:
        own: The base's alphabet, None where it has none.
        rows: Whose texts are to be written.
        spell: Gives the text as it is trained on.
    """
    text = "".join("".join(spell(row).split()) for row in rows)
    if own is None:
        return Letters("texts", tuple(sorted(set(text))))
    lacking = own.missing(text)
    if not lacking:
        return Letters("base", ())
    unknown = sum(text.count(letter) for letter in lacking)
    return Letters("both" if 2 * unknown <= len(text) else "texts", tuple(lacking))


def share_for(seconds: float, letters: Letters) -> float:
    """Return the share of the encoder's parameters to train.

    Args:
        seconds: Of speech to learn from.
        letters: What is to be written; another alphabet is another language, which asks for more
            than another voice.
    """
    share = next(share for most_s, share in _SHARES if seconds < most_s)
    return share if letters.keeps_head else 2 * share


_SHARES = ((1200.0, 0.01), (7200.0, 0.02), (math.inf, 0.04))
# seconds below which: passes over the data, seconds a batch
_PASSES = ((900.0, 60, 32), (3600.0, 40, 48), (10800.0, 25, 64), (math.inf, 15, 96))


def choose_values(
    base: Base, parts: Parts, letters: Letters, method: str, size: Size | None
) -> dict[str, Any]:
    """Return settings of the training task `adapt`, as a tree.

    Args:
        base: What is adapted.
        parts: The recordings by use.
        letters: What is to be written.
        method: The method; empty for a head alone.
        size: How large its adapter is; None for a head alone.
    """
    rows, seconds = parts.train, seconds_of(parts.train)
    passes, least_s = next((passes, each) for most, passes, each in _PASSES if seconds < most)
    lengths = [row.duration or 0.0 for row in rows]
    batch_s = max(float(least_s), math.ceil(4 * statistics.median(lengths)))
    if not letters.keeps_head:
        passes = passes * 3 // 2  # a new head first has to find its letters
    # a window is filled up for every row, however short
    rows_most = 32 if base.window_s is None else 8
    steps = math.ceil(passes * seconds / min(batch_s, rows_most * statistics.mean(lengths)))
    rate = method_of(method).learning_rate if method else _NEW_HEAD_RATE
    trainer = {"patience": PATIENCE} | schedule(
        min(_MOST_STEPS, max(_LEAST_STEPS, steps)), EVALUATIONS
    )
    if not letters.keeps_head:
        trainer["patience"] = _NEW_HEAD_PATIENCE
    dev_words = sum(len((row.text or "").split()) for row in parts.dev)
    return {
        "method": method,
        "adapter": {} if size is None else dict(size.settings),
        "alphabet": letters.alphabet,
        "keep_head": letters.keeps_head,
        "head_rate": _KEPT_HEAD_RATE if letters.keeps_head else _NEW_HEAD_RATE,
        "data": {"noise": [], "responses": [], "edge_s": 0.15},
        "batch": {
            "batch_s": batch_s,
            "max_rows": rows_most,
            "max_s": base.needs.longest_s,
        },
        "augment": _augmentation(base.family),
        "trainer": {"learning_rate": rate} | trainer,
        # few words make a coarse scale, on which a better step may look the same
        "score": "cer" if dev_words < _FEW_WORDS else "headline",
    }


def schedule(steps: int, evaluations: int) -> dict[str, Any]:
    """Return the trainer's settings for so many steps.

    Args:
        steps: Optimiser steps.
        evaluations: How often to score in that time.
    """
    every = max(1, math.ceil(steps / evaluations))
    return {
        "steps": steps,
        "warmup_steps": max(1, steps // 20),
        "evaluate_every": every,
        "checkpoint_every": every,
        "log_every": max(1, min(20, every // 4)),
    }


def _augmentation(family: str) -> Mapping[str, Any]:
    """Return light augmentation without noises and rooms, of which one's own data has none."""
    return {
        "unit_db": _DECIBELS_OF_LOG_MEL if family == "w2v_bert" else _DECIBELS_OF_OTHERS,
        "speed": [0.9, 1.12],
        "speed_prob": 0.5,
        "band_limit_prob": 0.0,
        "noise_prob": 0.0,
        "reverb_prob": 0.0,
        "tilt_db": 3.0,
        "formant": 0.08,
        "tempo": [0.92, 1.1],
        "time_masks": 1,
        "time_mask_rate": 0.05,
        "band_masks": 1,
        "band_mask_width": 8,
    }

"""What student and teacher hear of the same clip."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechadapt.audio.augment import AugmentConfig, Signal
from speechadapt.core.limits import Interval, Probability
from speechadapt.core.seed import generator
from speechadapt.data.manifest import Utterance
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.objective import Batch
from speechadapt.training.speech import SpeechBatches, SpeechRow


@dataclass(frozen=True)
class DegradeConfig:
    """What the student's clip suffers and the teacher's does not; nothing changes the timing.

    Args:
        noise_prob: Probability of added noise.
        snr_db: Lowest and highest signal-to-noise ratio.
        reverb_prob: Probability of a room impulse response.
        band_limit_prob: Probability of a telephone-like band.
        gain_db: Lowest and highest level change.
    """

    noise_prob: Probability = 0.0
    snr_db: Interval = (0.0, 20.0)
    reverb_prob: Probability = 0.0
    band_limit_prob: Probability = 0.0
    gain_db: Interval = (0.0, 0.0)

    @property
    def acts(self) -> bool:
        """Whether student and teacher ever hear something else."""
        chances = self.noise_prob, self.reverb_prob, self.band_limit_prob
        return any(chances) or self.gain_db != (0.0, 0.0)

    def augment(self) -> AugmentConfig:
        """Return it as settings of `augment_signal`."""
        return AugmentConfig(
            speed_prob=0.0,
            band_limit_prob=self.band_limit_prob,
            noise_prob=self.noise_prob,
            snr_db=self.snr_db,
            reverb_prob=self.reverb_prob,
            gain_db=self.gain_db,
        )


class PairMaker:
    """Makes the features of student and teacher.

    Augmentation is of the clip, so both hear it; only the student's is degraded afterwards.

    Args:
        speech: Gives noises and rooms.
        student: Features of the student.
        teacher: Features of the teacher.
        degrade: What the student's clip suffers.
    """

    def __init__(
        self,
        speech: SpeechBatches,
        student: FeatureMaker,
        teacher: FeatureMaker,
        degrade: DegradeConfig,
    ) -> None:
        self.speech = speech
        self.student = student
        self.teacher = teacher
        self.degrade = degrade

    def __call__(self, rows: Sequence[SpeechRow], step: int) -> Batch:
        """Return features and lengths of both.

        Args:
            rows: Signals.
            step: Training step.
        """
        # the same draws change the features of both
        clean = [SpeechRow(row.signal, row.text, copy.deepcopy(row.random)) for row in rows]
        worse = [
            SpeechRow(self._degraded(row.signal, copy.deepcopy(row.random)), row.text, row.random)
            for row in rows
        ]
        features, lengths = self.student(worse, step)
        wanted, counts = self.teacher(clean, step)
        return {
            "features": features,
            "lengths": lengths,
            "teacher_features": wanted,
            "teacher_lengths": counts,
        }

    def degraded(self, signal: Signal, item: Utterance) -> Signal:
        """Return a dev recording as the student hears it, always the same.

        Args:
            signal: Its samples.
            item: Which one it is.
        """
        return self._degraded(signal, generator("degrade", item.id))

    def _degraded(self, signal: Signal, random: np.random.Generator) -> Signal:
        if not self.degrade.acts:
            return signal
        return self.speech.augmented(signal, self.degrade.augment(), random)

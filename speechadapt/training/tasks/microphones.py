"""Adaptation of a frozen encoder to several microphones: an adapter and a CTC head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechadapt.adapters.attach import active
from speechadapt.adapters.second_attention import RECORDING
from speechadapt.audio.augment import Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.models.adapted import save_adapted
from speechadapt.training.adapt.microphones import Config as Config
from speechadapt.training.adapt.microphones import MicrophoneFeatures, Microphones, as_clips
from speechadapt.training.adapt.parts import save_whole
from speechadapt.training.adapt.transcribed import TranscribedObjective
from speechadapt.training.objective import Batch


def build(config: Config) -> MicrophonesObjective:
    """Make the objective of a run."""
    return MicrophonesObjective(config)


class MicrophonesObjective(TranscribedObjective):
    """A frozen encoder that hears each recording through several microphones at once.

    Args:
        config: The run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.microphones = Microphones(self.speech, config)
        self.inputs.features = MicrophoneFeatures(self.microphones, self.inputs.features)

    @contextmanager
    def _meeting(self, rows: int) -> Iterator[None]:
        name = None if self.handle is None else self.handle.name
        with active(self.encoder, name, {RECORDING: self.microphones.recordings(rows)}):
            yield

    def _frames(self, batch: Batch) -> tuple[Frames, Lengths]:
        with self._meeting(len(batch["features"])):
            frames, lengths = self.encoder(batch["features"], batch["lengths"])
        return self.microphones.read(frames, lengths)

    def _read(self, name: str, signals: list[Signal]) -> list[str]:
        rate = self.speech.sample_rate
        heard: list[Signal] = []
        for number, signal in enumerate(signals):
            padded = add_margin(signal, rate, self.margin_s)
            heard += self.microphones.dev(padded, name, number)
        with self._meeting(len(heard)):
            frames, lengths = self.encoder.encode(as_clips(heard, self.device))
        return self._written(*self.microphones.read(frames, lengths))

    def _write(self, folder: Path, scores: Mapping[str, Any]) -> None:
        if self.config.arm == "full":
            save_whole(self.encoder, self.head, self.alphabet, self.margin_s, folder)
            return
        save_adapted(
            folder,
            self.encoder,
            self.handle,
            self.head,
            self.described_head,
            training=self.training_facts(),
            scores=scores,
        )

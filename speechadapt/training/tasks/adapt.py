"""Adaptation of a frozen encoder to new speech: an adapter and a CTC head, from transcripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechadapt.models.adapted import save_adapted
from speechadapt.training.adapt.config import Config as Config
from speechadapt.training.adapt.parts import save_whole
from speechadapt.training.adapt.transcribed import TranscribedObjective


def build(config: Config) -> AdaptObjective:
    """Make the objective of a run."""
    return AdaptObjective(config)


class AdaptObjective(TranscribedObjective):
    """A frozen encoder with an adapter and a CTC head; or one of the arms to compare with.

    Args:
        config: The run.
    """

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

"""A frozen encoder whose frames another encoder learns to predict.

Frame-level targets tell a new encoder at every frame what is being said, long before a sequence
loss has found its alignment (features as targets: FitNets, arXiv 1412.6550).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.encoders.catalog import load_encoder


class FrameTeacher(nn.Module):
    """Targets from a frozen encoder, and the linear map that predicts them.

    Args:
        folder: Model folder of the teacher.
        dim: Width of the student's frames.
        frame_rate: Rate of the student's frames in Hz.
    """

    def __init__(self, folder: Path, dim: int, frame_rate: float) -> None:
        super().__init__()
        teacher = load_encoder(folder, offline=True)
        self._teacher = [teacher]  # listed: not a submodule, neither trained nor saved
        self.sample_rate = teacher.sample_rate
        self.step = teacher.frame_rate / frame_rate
        self.predict = nn.Linear(dim, teacher.dim)

    def inputs(self, signals: Sequence[Tensor], stretch: Sequence[float]) -> dict[str, Tensor]:
        """Extract the teacher's features of a batch.

        Args:
            signals: Waveforms at the teacher's sample rate.
            stretch: Seconds of signal per second that the student sees, per row (its tempo).
        """
        features, lengths = self._teacher[0].extract(signals)
        return {
            "teacher_features": features,
            "teacher_lengths": lengths,
            "stretch": torch.tensor(list(stretch), dtype=torch.float32),
        }

    def forward(
        self, frames: Frames, lengths: Lengths, batch: dict[str, Tensor]
    ) -> Float[Tensor, ""]:
        """Return the mean squared error on the teacher's normalised frames (1: the mean alone).

        Args:
            frames: The student's frames.
            lengths: Valid frames per row.
            batch: Holds what `inputs` returned.
        """
        wanted = self._targets(batch, frames.shape[1])
        error = (self.predict(frames) - wanted).square().mean(-1)
        valid = length_mask(lengths, frames.shape[1])
        mean: Tensor = error[valid].mean()
        return mean

    @torch.no_grad()
    def _targets(self, batch: dict[str, Tensor], count: int) -> Frames:
        teacher = self._teacher[0].to(batch["teacher_features"].device)
        frames, lengths = teacher(batch["teacher_features"], batch["teacher_lengths"])
        places = torch.arange(count, device=frames.device) + 0.5
        places = (places[None, :] * self.step * batch["stretch"][:, None]).long()
        places = torch.minimum(places, lengths[:, None] - 1)
        chosen = frames.gather(1, places[:, :, None].expand(-1, -1, frames.shape[2]))
        return functional.layer_norm(chosen, chosen.shape[-1:])

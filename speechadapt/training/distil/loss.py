"""How far a student's frames, layers and token distributions are from a teacher's.

    error(s, t) = sum |s - t|^2 / sum |t - mean t|^2  +  cosine * mean(1 - cos(s, t))

over the valid frames: the first part is 1 where the student does no better than the teacher's mean
frame, whatever the scale of a layer. Frames past a clip's end count nowhere.

Source: features as targets, FitNets (arXiv 1412.6550); per-block terms with those that are not
finite left out, PEA-Diffusion (arXiv 2311.17086).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from speechadapt.core.errors import ConfigError, ShapeError
from speechadapt.core.limits import NotNegative
from speechadapt.core.shapes import Frames, Lengths, length_mask
from speechadapt.encoders.base import Encoder

_TINY = 1e-8


@dataclass(frozen=True)
class FrameLossConfig:
    """Weights of the terms on encoder states.

    Args:
        final: Weight of the error of the encoder's output.
        layer: Weight of the mean error over the layers.
        layers: Numbers of the layers compared, from 0; empty means all.
        cosine: Weight of the angle beside the squared error, in each term.
    """

    final: NotNegative = 1.0
    layer: NotNegative = 1.0
    layers: tuple[int, ...] = ()
    cosine: NotNegative = 0.5


@dataclass(frozen=True)
class Heard:
    """What an encoder made of a batch.

    Args:
        frames: Its output.
        lengths: Valid frames per row.
        layers: The output of each layer asked for.
    """

    frames: Frames
    lengths: Lengths
    layers: tuple[Float[Tensor, "batch _ _"], ...] = ()


def layer_paths(encoder: Encoder, config: FrameLossConfig) -> tuple[str, ...]:
    """Return the modules whose outputs are compared, relative to the transformers model.

    Args:
        encoder: Whose layers.
        config: Which of them.

    Raises:
        ConfigError: The encoder has no layer of a number.
    """
    if not config.layer:
        return ()
    count = sum(role.startswith("layer.") and role.endswith(".end") for role in encoder.sites)
    unknown = [number for number in config.layers if not 0 <= number < count]
    if unknown:
        raise ConfigError(
            f"frames.layers names {unknown}, but {encoder.family} has the layers 0 to {count - 1}."
        )
    return tuple(encoder.site(f"layer.{n}.end").read for n in config.layers or range(count))


def hear(encoder: Encoder, features: Tensor, lengths: Lengths, paths: Sequence[str] = ()) -> Heard:
    """Encode features and keep what some of the layers give, as attached adapters leave it.

    Args:
        encoder: The encoder.
        features: As its `extract` returns them.
        lengths: Valid feature frames per row.
        paths: Modules as `layer_paths` names them.
    """
    kept: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            kept[path] = output[0] if isinstance(output, tuple) else output

        return hook

    # registered last, so that adapters have had their turn
    hooks = [encoder.model.get_submodule(one).register_forward_hook(keep(one)) for one in paths]
    try:
        frames, valid = encoder(features, lengths)
    finally:
        for hook in hooks:
            hook.remove()
    return Heard(frames, valid, tuple(kept[path] for path in paths))


def frame_error(
    student: Float[Tensor, "batch positions dim"],
    teacher: Float[Tensor, "batch positions dim"],
    mask: Bool[Tensor, "batch positions"],
    cosine: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the relative squared error of the positions that count, and their angle.

    Args:
        student: States that learn.
        teacher: States to be met.
        mask: True where a position counts.
        cosine: Weight of one minus the cosine of the angle.
    """
    mine, wanted = student[mask].float(), teacher[mask].float()
    spread = (wanted - wanted.mean(0)).square().sum() + _TINY
    error = (mine - wanted).square().sum() / spread
    if cosine:
        error = error + cosine * (1 - functional.cosine_similarity(mine, wanted, dim=-1)).mean()
    return error


class FrameLoss:
    """The terms on encoder states.

    Args:
        config: Their weights.
    """

    def __init__(self, config: FrameLossConfig) -> None:
        self.config = config

    def __call__(
        self, student: Heard, teacher: Heard
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Return the weighted sum, and each error alone; terms that are not finite are left out.

        A row counts up to the shorter of its two lengths, which differ by a frame at most where
        two encoders round differently.

        Args:
            student: What the student made of the batch.
            teacher: What the teacher made of the same clips.

        Raises:
            ShapeError: The two have other numbers of layers or other widths.
        """
        valid = torch.minimum(student.lengths, teacher.lengths)
        terms = [(self.config.final, student.frames, teacher.frames, "frames")]
        if len(student.layers) != len(teacher.layers):
            raise ShapeError(
                f"{len(student.layers)} layers of the student were to be compared with "
                f"{len(teacher.layers)} of the teacher."
            )
        each = self.config.layer / max(1, len(student.layers))
        for mine, wanted in zip(student.layers, teacher.layers, strict=True):
            terms.append((each, mine, wanted, "layers"))
        total, figures = student.frames.new_zeros(()).float(), dict[str, float]()
        skipped = 0
        for weight, mine, wanted, name in terms:
            if not weight:
                continue
            error = self._error(mine, wanted, valid, student, teacher)
            if not bool(error.isfinite()):
                skipped += 1
                continue
            total = total + weight * error
            share = 1.0 if name == "frames" else 1.0 / len(student.layers)
            figures[name] = figures.get(name, 0.0) + share * float(error.detach())
        return total, figures | {"skipped": float(skipped)}

    def _error(
        self,
        mine: Float[Tensor, "batch _ _"],
        wanted: Float[Tensor, "batch _ _"],
        valid: Lengths,
        student: Heard,
        teacher: Heard,
    ) -> Float[Tensor, ""]:
        if mine.shape[-1] != wanted.shape[-1]:
            raise ShapeError(
                f"states of width {mine.shape[-1]} were to be compared with states of width "
                f"{wanted.shape[-1]}."
            )
        counts = (mine.shape[1], wanted.shape[1])
        if counts == (student.frames.shape[1], teacher.frames.shape[1]):
            size = min(counts)
            mask = length_mask(valid, size)
            return frame_error(mine[:, :size], wanted[:, :size], mask, self.config.cosine)
        # tokens that are no frames (patches of a spectrogram): both sides have all of a window
        every = torch.ones(mine.shape[:2], dtype=torch.bool, device=mine.device)
        return frame_error(mine, wanted, every, self.config.cosine)


def divergence(
    student: Float[Tensor, "batch tokens vocabulary"],
    teacher: Float[Tensor, "batch tokens vocabulary"],
    mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Return the mean Kullback-Leibler divergence of the student's tokens, in nats per token.

    Args:
        student: Logits that learn.
        teacher: Logits to be met.
        mask: True at the tokens that count; where none does the result is 0.
    """
    mine, wanted = student[mask].float().log_softmax(-1), teacher[mask].float().log_softmax(-1)
    each = functional.kl_div(mine, wanted, reduction="none", log_target=True).sum(-1)
    return each.sum() / max(1, each.numel())

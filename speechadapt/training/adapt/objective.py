"""What adaptations of a frozen encoder share, whatever their loss: what is trained, and how."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from speechadapt.adapters.attach import attach
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import Handle
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.consistency import SecondPass, disagreement
from speechadapt.training.adapt.report import Meter
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Group, Objective

Arm = Literal["adapter", "head", "full"]
_WHAT = {"full": "full fine-tuning", "head": "head alone"}


@runtime_checkable
class AdaptationConfig(Protocol):
    """The settings that every adaptation has."""

    @property
    def trainer(self) -> TrainerConfig:
        """Steps."""

    @property
    def arm(self) -> Arm:
        """What is trained beside the head."""

    @property
    def method(self) -> str:
        """The adapter method."""

    @property
    def adapter(self) -> Any:
        """The method's settings."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Role patterns; empty takes the method's own."""

    @property
    def train_norms(self) -> Literal["none", "adapted", "all"]:
        """Which norms are trained beside it."""

    @property
    def adapter_rate(self) -> float | None:
        """Peak learning rate of the adapter."""

    @property
    def head_rate(self) -> float | None:
        """Peak learning rate of the head."""

    @property
    def adapter_decay(self) -> float | None:
        """Weight decay of the adapter."""

    @property
    def head_decay(self) -> float | None:
        """Weight decay of the head."""


def method_problems(settings: AdaptationConfig, told: frozenset[str] = frozenset()) -> list[str]:
    """Say whether there is no such method, which of its settings do not fit, and what it lacks.

    Args:
        settings: The run's.
        told: Conditions that the run gives for every row.
    """
    if settings.arm != "adapter":
        return []
    try:
        method = method_of(settings.method)
        config: Any
        config, found = bind(method.config, settings.adapter, "adapter")
        needs = method.needs if found else method.of(config).needs
    except (CatalogError, ConfigError) as error:
        return [str(error)]
    lacking = sorted(needs - told)
    if lacking:
        found.append(
            f"method '{settings.method}' reads {', '.join(lacking)} of every row, which "
            f"{'this run does not tell' if told else 'recordings alone do not say'}."
        )
    return found


class AdaptedObjective(Objective):
    """A frozen encoder with an adapter and a head; or one of the arms to compare with.

    Its state is what is trained: the base's weights are in no checkpoint.

    Args:
        encoder: The encoder; trained itself in the arm `full` alone.
        settings: Arm, method, rates.

    Attributes:
        encoder: The encoder.
        handle: The attachment; None in the other arms.
        head: Reads the frames; set by the task, after the adapter is attached.
        meter: Times the steps.
    """

    head: nn.Module

    def __init__(self, encoder: Encoder, settings: AdaptationConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.handle = self._train_what()
        self.adapter = None if self.handle is None else self.handle.module
        self.meter = Meter()
        self.steps = 0
        self._recomputed: list[nn.Module] = []

    def _train_what(self) -> Handle | None:
        settings = self.settings
        if settings.arm == "adapter":
            return attach(
                self.encoder,
                settings.method,
                config=settings.adapter,
                roles=settings.roles or None,
                train_norms=settings.train_norms,
            )
        if settings.arm == "full":
            self.encoder.model.requires_grad_(True)
            self.skips_parameters = True  # layer drop, and what masks inputs in pre-training
        return None

    @property
    def what(self) -> str:
        """What is trained, in words."""
        return _WHAT.get(self.settings.arm, f"adapter {self.settings.method}")

    def parts(self) -> dict[str, nn.Module]:
        """Return what is trained, by the name its tensors have in a checkpoint."""
        parts: dict[str, nn.Module] = {"head": self.head}
        if self.adapter is not None:
            parts["adapter"] = self.adapter
        if self.settings.arm == "full":
            parts["encoder"] = self.encoder.model
        return parts

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the tensors of what is trained."""
        return {
            f"{part}.{name}": value
            for part, module in self.parts().items()
            for name, value in module.state_dict().items()
        }

    def load_state_dict(self, state_dict, strict=True, assign=False):  # type: ignore[no-untyped-def]
        """Load tensors named as `state_dict` names them."""
        for part, module in self.parts().items():
            start = f"{part}."
            own = {
                name.removeprefix(start): value
                for name, value in state_dict.items()
                if name.startswith(start)
            }
            module.load_state_dict(own, strict=strict, assign=assign)

    def groups(self) -> dict[str, Group]:
        """Return rates and decays of adapter, norms and head; see `Objective.groups`."""
        settings, usual = self.settings, self.settings.trainer.learning_rate
        adapter = (settings.adapter_rate or usual) / usual
        head = (settings.head_rate or usual) / usual
        return {
            "adapter.": Group(adapter, settings.adapter_decay),
            "adapter.norms.": Group(adapter, 0.0),
            "head.": Group(head, settings.head_decay),
        }

    def train(self, mode: bool = True) -> AdaptedObjective:
        """Switch to training or evaluation mode; frozen layers stay in the latter."""
        super().train(mode)
        if self.settings.arm != "full":
            self.encoder.model.eval()
            for layer in self._recomputed:
                layer.training = mode  # of the layer alone: its own parts drop nothing
        return self

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass; see `Objective.checkpoint_gradients`.

        Raises:
            ConfigError: Frozen layers would drop activations when recomputed.
        """
        super().checkpoint_gradients()
        if self.settings.arm == "full":
            return
        layers = [one for one in self.modules() if isinstance(one, GradientCheckpointingLayer)]
        for layer in layers:
            rate = getattr(layer, "dropout", 0.0)
            if isinstance(rate, float) and rate:
                raise ConfigError(
                    f"trainer.gradient_checkpointing was asked for, but the frozen layers of "
                    f"{self.encoder.family} would drop {rate:g} of their values. Save the base "
                    "with dropout 0 in its config.json."
                )
        self._recomputed = list(layers)

    def with_penalty(self, loss: Tensor, figures: dict[str, float]) -> Tensor:
        """Return the loss with the method's penalty, which is named among the figures."""
        penalty = None if self.handle is None else self.handle.penalty()
        if penalty is None:
            return loss
        figures["penalty"] = float(penalty.detach())
        return loss + penalty

    def with_agreement(
        self, loss: Tensor, first: Tensor, again: SecondPass, figures: dict[str, float]
    ) -> Tensor:
        """Return the loss with the disagreement of two passes over the batch, where that counts.

        Args:
            loss: Of the first pass.
            first: Its class scores, the classes last.
            again: Makes a second pass; returns its scores and the positions that count.
            figures: Gets the disagreement.
        """
        weight = 0.0 if self.handle is None else self.handle.method.consistency
        if not weight or not self.training:
            return loss
        second, valid = again()
        apart = disagreement(first, second, valid)
        figures["disagreement"] = float(apart.detach())
        return loss + weight * apart

    def begin(self) -> None:
        """Let the method look at the loss of the first batches."""
        if self.handle is not None:
            self.eval()
            self.handle.begin(self.batch_loss)

    def after_step(self, step: int, seconds: float) -> None:
        """Let the method act; count the step."""
        self.steps = step
        self.meter.step(seconds)
        if self.handle is not None:
            self.handle.after_step(step)

    def trained_parameters(self) -> dict[str, int]:
        """Return how many numbers are trained, by part."""
        found = {
            name: sum(part.numel() for part in module.parameters())
            for name, module in self.parts().items()
        }
        return found if self.handle is None else found | {"adapter": self.handle.num_parameters()}

"""Whether an attached adapter does what it should: act when on, and be gone when off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import attachment, router_of
from speechadapt.adapters.hooks import rebuild
from speechadapt.core.errors import ConfigError
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder

_SECOND = 16000


@dataclass(frozen=True)
class Report:
    """What was found about one attachment.

    Args:
        name: Its name.
        method: Its method.
        sites: Roles it stands at, its norms included.
        parameters: Trainable parameters.
        changed: The largest difference that switching it on makes to a valid frame.
        off_equals_base: Whether switched off, the encoder gives the base's output bit for bit.
        finite: Whether switched on, every valid frame is a number.
        silent: Roles whose adapter never ran.
        starts_as_identity: Whether its method changes nothing before it is trained.
    """

    name: str
    method: str
    sites: tuple[str, ...]
    parameters: int
    changed: float
    off_equals_base: bool
    finite: bool
    silent: tuple[str, ...]
    starts_as_identity: bool

    @property
    def acts(self) -> bool:
        """Whether switching it on changes the output."""
        return self.changed > 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong: it acts, or is at a start that changes nothing by design."""
        works = self.acts or self.starts_as_identity
        return works and self.off_equals_base and self.finite and not self.silent

    def __str__(self) -> str:
        """Say it in sentences."""
        lines = [
            f"adapter '{self.name}' ({self.method}) stands at {len(self.sites)} sites with "
            f"{self.parameters:,} trainable parameters."
        ]
        if not self.finite:
            lines.append("On: the output holds NaN or infinity.")
        elif self.acts:
            lines.append(f"On: a valid frame changes by up to {self.changed:.3g}.")
        elif self.starts_as_identity:
            lines.append("On: nothing changes; it is at its start, or has learned nothing.")
        else:
            lines.append("On: nothing changes, though its method should change something.")
        same = "equals" if self.off_equals_base else "DIFFERS FROM"
        lines.append(f"Off: the output {same} the base bit for bit.")
        if self.silent:
            lines.append(f"Never ran: {', '.join(self.silent)}.")
        return "\n".join(lines)


def verify(
    encoder: Encoder,
    name: str,
    waveforms: Sequence[Clip] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Report:
    """Compare the encoder with an attachment on, with it off, and without any hook at all.

    Args:
        encoder: The encoder; left as it was.
        name: The attachment's name.
        waveforms: Mono signals at the encoder's sample rate, two of noise where None.
        conditions: What methods with `needs` read, one entry per waveform.

    Returns:
        What was found.

    Raises:
        CatalogError: The encoder has no such attachment.
        ConfigError: It is merged, so that it cannot be switched off.
    """
    handle = attachment(encoder, name)
    router = router_of(encoder)
    if router.merged:
        raise ConfigError(
            f"adapter '{name}' was to be switched off and on, but {', '.join(router.merged)} is "
            "merged into the weights. Use unmerge(encoder, name) first."
        )
    clips = _noise(encoder.sample_rate) if waveforms is None else list(waveforms)
    training = encoder.model.training, handle.module.training
    encoder.model.eval()
    handle.module.eval()
    router.calls = {}
    try:
        on, lengths = _encode(encoder, name, clips, conditions)
        calls, router.calls = router.calls, None
        off, _ = _encode(encoder, None, clips, None)
        base = _without_hooks(encoder, clips)
    finally:
        router.calls = None
        encoder.model.train(training[0])
        handle.module.train(training[1])
    valid = torch.arange(on.shape[1], device=on.device)[None] < lengths[:, None]
    # a bridge gives frames of another width, and then all of it is change
    change = on - base if on.shape == base.shape else on
    differences = change.abs()[valid]
    roles = tuple(site.role for site in (*handle.sites, *handle.norm_sites))
    return Report(
        name=name,
        method=handle.method_name,
        sites=roles,
        parameters=handle.num_parameters(),
        changed=float(differences.max()),
        off_equals_base=torch.equal(off, base),
        finite=bool(on[valid].isfinite().all()),
        silent=tuple(role for role in roles if role not in calls),
        starts_as_identity=handle.method.starts_as_identity,
    )


def _noise(rate: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(samples, generator=generator) for samples in (rate, rate // 2)]


@torch.no_grad()
def _encode(
    encoder: Encoder, name: str | None, clips: Sequence[Tensor], conditions: Any
) -> tuple[Tensor, Tensor]:
    with active(encoder, name, conditions):
        return encoder.encode(clips)


@torch.no_grad()
def _without_hooks(encoder: Encoder, clips: Sequence[Tensor]) -> Tensor:
    router = router_of(encoder)
    for hook in router.hooks:
        hook.remove()
    try:
        return encoder.encode(clips)[0]
    finally:
        rebuild(router, encoder)

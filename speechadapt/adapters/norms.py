"""Trainable norms beside a method: a gain and a shift after the output of a frozen layer norm.

    y <- y * (1 + gain) + shift          gain, shift: one value per channel, zero at first

It does what training the norm's own weight and bias does, leaves them alone, and merges into them.

Source: https://arxiv.org/abs/1902.00751 section 2.1 (layer norms are trained with the adapters).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechadapt.adapters.spec import Adapter, Context, WeightDelta
from speechadapt.core.errors import ConfigError, SiteError, near_misses
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site

CHOICES = ("none", "adapted", "all")


class NormAdapter(Adapter):
    """Gain and shift at one norm.

    Args:
        site: The norm's site.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(site.dim_out))
        self.shift = nn.Parameter(torch.zeros(site.dim_out))

    def leave(
        self, x: Tensor, y: Float[Tensor, "*positions dim"], context: Context
    ) -> Float[Tensor, "*positions dim"]:
        """Scale and shift the norm's output.

        Args:
            x: Input of the norm, not used.
            y: Its output.
            context: Not used.
        """
        return torch.addcmul(self.shift, y, 1 + self.gain)


def weight_delta(adapter: NormAdapter, module: nn.Module) -> WeightDelta:
    """Return what merging adds to a layer norm.

    Args:
        adapter: Gain and shift.
        module: The frozen norm.
    """
    weight: Any = module.weight
    bias: Any = module.bias
    return WeightDelta(weight * adapter.gain, bias * adapter.gain + adapter.shift)


def norm_sites(encoder: Encoder, choice: str, adapted: Sequence[Site]) -> list[Site]:
    """Return the norms to train.

    Args:
        encoder: Whose norms.
        choice: `none`, `adapted` (the norms that feed an adapted branch, and the last norm of a
            layer whose end is adapted) or `all` (every norm of a layer, and the encoder's last).
        adapted: The sites of the method.

    Raises:
        ConfigError: `choice` is none of these.
        SiteError: No norm is chosen, or the method adapts one of them itself.
    """
    if choice not in CHOICES:
        raise ConfigError(
            f"adapter.train_norms '{choice}' was asked for.{near_misses(choice, CHOICES)}"
        )
    if choice == "none":
        return []
    sites = encoder.sites
    norms = {site.write: site for site in sites.values() if ".norm." in site.role}
    if choice == "all":
        last = sites.get("encoder")
        if last is not None and last.write not in norms and last.kind == "LayerNorm":
            norms[last.write] = last
        chosen = list(norms.values())
    else:
        paths = {_feeding(encoder, site) for site in adapted}
        chosen = [norm for path, norm in norms.items() if path in paths]
    taken = {site.role for site in adapted} & {site.role for site in chosen}
    if taken:
        raise SiteError(
            f"adapter.train_norms={choice} was asked for, but the method itself adapts "
            f"'{min(taken)}'. Use train_norms=none or other roles."
        )
    if not chosen:
        raise SiteError(
            f"adapter.train_norms={choice} was asked for, but no norm feeds the adapted sites "
            f"({', '.join(site.role for site in adapted[:3])}). Use train_norms=all or none."
        )
    return chosen


def _feeding(encoder: Encoder, site: Site) -> str | None:
    """Return the path of the norm that belongs to an adapted site, where there is one."""
    layer = site.role.removesuffix("end")
    if layer != site.role:
        norms = [
            one.write for role, one in encoder.sites.items() if role.startswith(f"{layer}norm.")
        ]
        return norms[-1] if norms else None
    branch = encoder.sites.get(".".join(site.role.split(".")[:3]))
    return site.tap or (None if branch is None else branch.tap)

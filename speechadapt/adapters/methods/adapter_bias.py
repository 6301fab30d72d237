"""A shift in one learned direction, by an amount that each frame decides.

    y' = y + (w x + c) v       y = W x + b: the feed-forward's second map, x: what it reads

`v` starts at zero, so nothing changes at first. The shift is linear in `x`, so merging is exact:
W + v w, b + c v, a change of rank one. With `share` all sites use one `w` and `c`, each its `v`.

Source: https://arxiv.org/abs/2205.00305 section 3
Reference: https://github.com/Allen0307/AdapterBias/blob/fd9929f/src/transformers/models/bert/
    modeling_bert.py
Differs: it merges, which the paper leaves unsaid. There the layer norms outside attention are
    trained along, here that is the attachment's `train_norms`; and the reference's RoBERTa applies
    the shift only where the name of an output folder says so. A Conformer has one at each of its
    two feed-forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.blocks import check_frames
from speechadapt.adapters.lowrank import Factors, LowRankAdapter, check_site, weight_delta
from speechadapt.adapters.spec import Context, Method, WeightDelta
from speechadapt.core.errors import SiteError
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class AdapterBiasConfig:
    """Settings of the shift.

    Args:
        share: Whether all sites have one amount `w x + c` together.
    """

    share: bool = False


class AdapterBiasAdapter(LowRankAdapter):
    """The shift at one linear map.

    Args:
        site: The map; one with a bias, if the adapter is to be merged.
        config: Its settings.
        shared: The amount `w x + c` of all sites; only with `share`.

    Attributes:
        amount: How far each frame is shifted, `[batch, frames, 1]`; the shared one with `share`.

    Raises:
        SiteError: The site is no linear map.
    """

    def __init__(
        self, site: Site, config: AdapterBiasConfig, shared: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_frames(site, "adapter_bias")
        check_site(site)
        self.direction = nn.Parameter(torch.zeros(site.dim_out))
        if config.share:
            assert isinstance(shared, nn.Linear)
            self.amount = shared
        else:
            self.amount = nn.Linear(site.dim_in, 1)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Return `y` shifted along the direction, each frame by its own amount.

        Args:
            x: `[batch, frames, dim_in]`.
            y: `[batch, frames, dim_out]`.
            context: Not needed.
        """
        shifted: Tensor = y + self.amount(x) * self.direction
        return shifted

    def delta(self, module: nn.Module) -> WeightDelta:
        """Return v w and c v."""
        return self.factors(module).delta()

    def factors(self, module: nn.Module) -> Factors:
        """Return the change as a product of rank one and a bias."""
        weight, offset = self.amount.weight, self.amount.bias
        return Factors(down=weight, up=self.direction[:, None], bias=offset * self.direction)


def shared(sites: Sequence[Site], config: AdapterBiasConfig) -> nn.Module:
    """Return the amount `w x + c` of all sites; an empty module where each has its own.

    Args:
        sites: The sites of the attachment.
        config: Its settings.

    Raises:
        SiteError: The sites read different widths.
    """
    if not config.share:
        return nn.Identity()
    widths = sorted({site.dim_in for site in sites})
    if len(widths) > 1:
        raise SiteError(
            f"adapter.share=true was asked for at sites that read {widths} values, and one 'w' has "
            "one width. Set adapter.share=false or choose roles of one kind, such as ffn.down."
        )
    return nn.Linear(widths[0], 1)


def parameters(site: Site, config: AdapterBiasConfig) -> int:
    """Count d for the direction and f + 1 for the amount, unless that is shared."""
    return site.dim_out + (0 if config.share else site.dim_in + 1)


def shared_parameters(sites: Sequence[Site], config: AdapterBiasConfig) -> int:
    """Count f + 1 for the shared amount."""
    return sites[0].dim_in + 1 if config.share else 0


METHOD = Method(
    config=AdapterBiasConfig,
    adapter=AdapterBiasAdapter,
    roles=("ffn.down",),
    source="https://arxiv.org/abs/2205.00305 section 3",
    tiny=AdapterBiasConfig(),
    parameters=parameters,
    shared=shared,
    shared_parameters=shared_parameters,
    weight_delta=weight_delta,
    learning_rate=3e-3,
)

"""A bottleneck with a layer norm of its own on the residual stream at the end of every layer.

    h' = h + up(relu(down(norm(h))))

It is the adapter of Massively Multilingual Speech, trained one language at a time; transformers
calls it `adapter_attn_dim`. `up` starts at zero, so nothing changes at first.

Source: https://arxiv.org/abs/2305.13516 section 4.1
Reference: https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/models/wav2vec2/modeling_wav2vec2.py
    (Wav2Vec2AttnAdapterLayer and the layer that calls it)
Differs: the zero start; theirs begins with both maps random. On a Conformer it stands before the
    layer's closing norm.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from speechadapt.adapters.blocks import (
    Bottleneck,
    InitialName,
    bottleneck_parameters,
    check_frames,
    check_width,
)
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import Count, Probability
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class MmsConfig:
    """Settings of the MMS adapter."""

    bottleneck: Count = 16  # width between the maps, 16 in the published models
    initial: InitialName = "up_zero"
    dropout: Probability = 0.0  # of the normed input


class MmsAdapter(Adapter):
    """The bottleneck at the end of one layer.

    Args:
        site: Where it writes; frames, not a convolution.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site.
        SiteError: The site is a convolution.
    """

    def __init__(self, site: Site, config: MmsConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        check_frames(site, "mms")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.bottleneck = Bottleneck(
            site.dim_out,
            config.bottleneck,
            site.dim_out,
            norm=True,
            dropout=config.dropout,
            initial=config.initial,
        )

    def leave(self, x: Frames, y: Frames, context: Context) -> Frames:
        """Return `y` and what the bottleneck makes of it."""
        added: Frames = self.bottleneck(y)
        return y + added


def parameters(site: Site, config: MmsConfig) -> int:
    """Count 2 d r + r + d at a site of width d, and 2 d for the norm."""
    return bottleneck_parameters(site.dim_out, config.bottleneck, site.dim_out, norm=True)


METHOD = Method(
    config=MmsConfig,
    adapter=MmsAdapter,
    roles=("end",),
    source="https://arxiv.org/abs/2305.13516 section 4.1",
    tiny=MmsConfig(bottleneck=4),
    parameters=parameters,
)

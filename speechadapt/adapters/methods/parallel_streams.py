"""Parallel streams: every clip P times through the frozen encoder, behind learned prefixes.

    stream p, in every self-attention:  softmax(Q [K_p; K]^T / sqrt(d_k)) [V_p; V]
    after the closing norm:             y = sum_p ((1 - s) w_p + s / P) h_p        s = 0.01

K_p and V_p are learned, `prefix` of each; w are the softmax weights that a small network gives each
frame from its P states (see `adapters.streams`). The streams are rows of one batch: P times the
arithmetic, side by side. With one stream there is neither prefix nor network: nothing is trained
and the output is the base's, bit for bit. With more the start is not the base, because new keys
take a share of the attention.

Source: https://arxiv.org/abs/2505.10475 section 2
Reference: https://github.com/QwenLM/ParScale (inference alone is public)
Differs: the base is frozen, and is an encoder: every frame sees all others besides the prefix, and
    a Conformer's convolutions, which have none, see the frames alone. The frozen maps run over the
    prefix too, and what they make of it is replaced; so relative positions (`relative_key`) count
    it as frames before the first, while rotary ones do not turn it. On an audio spectrogram
    transformer the weights are of a patch. How prefixes start is not published; here they are
    normal, as wide as `deviation` says: streams that start apart learn sooner, and start further
    from the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from speechadapt.adapters.prefix import Prefix, check_prefix
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.adapters.streams import Mixer, mixer_parameters
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.core.limits import Count, Positive
from speechadapt.core.shapes import Frames
from speechadapt.encoders.sites import Site

_NAME = "parallel_streams"
_LEARNED = ("k", "v")  # the maps of an attention whose outputs a prefix replaces


@dataclass(frozen=True)
class ParallelStreamsConfig:
    """Settings of the streams.

    Args:
        streams: P; 1 is the base.
        prefix: Keys and values that each stream has of its own in every adapted attention.
        deviation: Standard deviation of those at the start.
    """

    streams: Count = 2
    prefix: Count = 48
    deviation: Positive = 0.1


class Whole(nn.Module):
    """What all adapters share: the check that none of their kinds is missing.

    Args:
        sites: All sites of the attachment.
        config: Its settings.

    Raises:
        SiteError: The end of the encoder, an attention or one of its maps is not among them.
    """

    def __init__(self, sites: Sequence[Site], config: ParallelStreamsConfig) -> None:
        super().__init__()
        roles = {site.role for site in sites}
        layers = sorted(role.partition(".attn")[0] for role in roles if ".attn" in role)
        wanted = [f"{layer}.attn{part}" for layer in layers for part in ("", ".k", ".v")]
        missing = next((role for role in ("encoder", *wanted) if role not in roles), None)
        if missing is not None or not layers:
            raise SiteError(
                f"adapter '{_NAME}' stands at whole attentions, their keys and values, and at the "
                f"end of the encoder; '{missing or 'attn'}' is not among the chosen roles. Choose "
                "roles=['attn', 'attn.k', 'attn.v', 'encoder'], or layers such as "
                "'layer.[3-5].attn', 'layer.[3-5].attn.[kv]' and 'encoder'."
            )


class StreamPart(Adapter):
    """What the adapters of all sites have in common.

    Args:
        config: The settings.
    """

    def __init__(self, config: ParallelStreamsConfig) -> None:
        super().__init__()
        self.streams, self.prefix = config.streams, config.prefix

    def splits(self, context: Context) -> bool:
        """Return whether there is more than one stream.

        Args:
            context: Of the call.

        Raises:
            ConfigError: The rows of the batch are not that many streams each.
        """
        if self.streams > 1 and context.streams != self.streams:
            raise ConfigError(
                f"adapter '{_NAME}' was to act on {self.streams} streams of every row, but the "
                f"batch holds {context.streams}: the model was called without its encoder. Call "
                "the encoder (encoder.encode or encoder(features, lengths)), or switch the adapter "
                "off."
            )
        return self.streams > 1


class AheadOfFrames(StreamPart):
    """Makes room for the prefix ahead of the frames of one attention.

    Args:
        site: A self-attention.
        config: Its settings.

    Raises:
        SiteError: The attention takes no prefix.
    """

    def __init__(self, site: Site, config: ParallelStreamsConfig) -> None:
        super().__init__(config)
        check_prefix(site, _NAME)

    def around(self, x: Tensor, context: Context) -> Prefix | None:
        """Send the prefix ahead of the frames.

        Args:
            x: Input of the attention.
            context: Of the call.
        """
        return Prefix(self.prefix) if self.splits(context) else None


class Learned(StreamPart):
    """Keys or values of the prefix of every stream.

    Args:
        site: The map of the frozen keys or values.
        config: Its settings.
    """

    def __init__(self, site: Site, config: ParallelStreamsConfig) -> None:
        super().__init__(config)
        self.learned: nn.Parameter | None = None
        if config.streams > 1:
            start = torch.randn(config.streams, config.prefix, site.dim_out)
            self.learned = nn.Parameter(config.deviation * start)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Replace what the frozen map makes of the prefix.

        Args:
            x: Not read.
            y: Output of the map, prefix first.
            context: Of the call.
        """
        if self.learned is None or not self.splits(context):
            return y
        ahead = self.learned.to(y.dtype).repeat(len(y) // self.streams, 1, 1)
        return torch.cat([ahead, y[:, self.prefix :]], dim=1)


class Joined(StreamPart):
    """Joins the streams after the encoder's closing norm.

    Args:
        site: The encoder.
        config: Its settings.
    """

    def __init__(self, site: Site, config: ParallelStreamsConfig) -> None:
        super().__init__(config)
        self.mixer = Mixer(site.dim_out, config.streams) if config.streams > 1 else None

    def leave(self, x: Tensor, y: Frames, context: Context) -> Frames:
        """Return the joined frames, the same in every stream.

        Args:
            x: Not read.
            y: Frames of every stream, those of one row side by side.
            context: Of the call.
        """
        if self.mixer is None or not self.splits(context):
            return y
        joined: Tensor = self.mixer(y.reshape(-1, self.streams, *y.shape[1:]))
        return joined.repeat_interleave(self.streams, 0)


def _adapter(site: Site, config: ParallelStreamsConfig, shared: nn.Module | None) -> Adapter:
    if site.role == "encoder":
        return Joined(site, config)
    last = site.role.rpartition(".")[2]
    if last == "attn":
        return AheadOfFrames(site, config)
    if last in _LEARNED and ".attn." in site.role:
        return Learned(site, config)
    raise SiteError(
        f"adapter '{_NAME}' stands at attentions, their keys and values, and at the end of the "
        f"encoder, but '{site.role}' is a {site.kind}. Choose roles such as attn, attn.k, attn.v "
        "and encoder."
    )


def parameters(site: Site, config: ParallelStreamsConfig) -> int:
    """Count P m d at keys and at values, P d^2 + d + P d + P at the end; none with one stream."""
    if config.streams == 1 or site.role.endswith(".attn"):
        return 0
    if site.role == "encoder":
        return mixer_parameters(site.dim_out, config.streams)
    return config.streams * config.prefix * site.dim_out


def streams(config: ParallelStreamsConfig) -> int:
    """Return P."""
    return config.streams


def resolve(config: ParallelStreamsConfig) -> Method:
    """Return the method of given settings: one stream is the base."""
    return replace(METHOD, starts_as_identity=config.streams == 1, resolve=None)


METHOD = Method(
    config=ParallelStreamsConfig,
    adapter=_adapter,
    roles=("attn", "attn.k", "attn.v", "encoder"),
    source="https://arxiv.org/abs/2505.10475 section 2",
    tiny=ParallelStreamsConfig(streams=2, prefix=3, deviation=1.0),
    parameters=parameters,
    starts_as_identity=False,
    shared=Whole,
    streams=streams,
    resolve=resolve,
    learning_rate=2e-3,
)

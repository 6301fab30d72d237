"""Sites: the named places of an encoder where an adapter may read and write.

Roles are a closed list, because saved adapters store them:

    layer.<i>.{attn,ffn,ffn1,ffn2,conv,end}      layer.<i>.attn.{q,k,v,out}
    layer.<i>.ffn*.{up,down}                     layer.<i>.conv.{pw1,depthwise,pw2}
    layer.<i>.norm.<name>                        stem.conv.<k>            encoder

A site is a span: it reads at the input of one module and writes at the output of another (often the
same). Encoders publish sites; methods ask for roles; neither knows the other.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from speechadapt.core.errors import SiteError, near_misses

_ROLE = re.compile(
    r"encoder|stem\.conv\.\d+"
    r"|layer\.\d+\.("
    r"attn|ffn|ffn1|ffn2|conv|end"
    r"|attn\.(q|k|v|out)"
    r"|ffn[12]?\.(up|down)"
    r"|conv\.(pw1|depthwise|pw2)"
    r"|norm\.[a-z0-9_]+)"
)

_ATTENTION = re.compile(r"layer\.\d+\.attn(\.\w+)?")


@dataclass(frozen=True)
class ConvShape:
    """How a convolution at a site is built.

    Args:
        kernel: Taps along time.
        stride: Positions from one output to the next.
        padding: Zeros the module itself puts on either side.
        groups: Groups of channels.
        across: Taps and stride along frequency, where the convolution cuts patches from a picture
            (a `Conv2d` on `[batch, channels, frequency, time]`).
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    across: tuple[int, int] | None = None


@dataclass(frozen=True)
class Grid:
    """How the tokens of a picture-like encoder lie: special ones first, then row after row.

    Args:
        specials: Tokens before the first patch.
        rows: Frequency rows.
        columns: Time columns.
    """

    specials: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Part:
    """That fewer or more than the frames can go through a span, and what is fitted to them.

    The names are those of arguments of the module at the read point.

    Args:
        mask: Holds the mask of an attention, `[batch, 1, queries or 1, keys]`; empty where frames
            do not meet within the span.
        positions: Holds the rotary positions, `[2, frames, 1, 1, width]`; empty where there are
            none.
        keys: Takes what chosen frames attend to, where that is more than themselves; empty where
            the attention has no such argument.
    """

    mask: str = ""
    positions: str = ""
    keys: str = ""


@dataclass(frozen=True)
class Site:
    """One place of an encoder.

    Args:
        role: Its name, from the closed list above.
        read: Path of the module whose input is read, relative to the transformers model.
        write: Path of the module whose output is written.
        tap: Path of the module whose input is the residual stream before the norm, where there is
            one.
        dim_in: Width at the read point (channels for a convolution).
        dim_out: Width at the write point.
        branch_scale: The factor the model applies to the written output afterwards (0.5 for a
            Conformer's feed-forward); an adapter's output is divided by it.
        kind: Class name of the written module.
        writes_input: True where the write replaces what goes into `write` instead of what comes
            out of it: a Conformer's `end` stands before the layer's closing norm.
        conv: Shape of the convolution, where the site is one.
        grid: How the tokens lie, where they are patches of a spectrogram.
        part: How some of the frames alone can go through; None where only all of them can.
        prefix: What is widened where positions go ahead of the frames; None where none can.
        heads: Attention heads, at a self-attention and at its maps; 0 elsewhere.
    """

    role: str
    read: str
    write: str
    dim_in: int
    dim_out: int
    tap: str | None = None
    branch_scale: float = 1.0
    kind: str = "Linear"
    writes_input: bool = False
    conv: ConvShape | None = None
    grid: Grid | None = None
    part: Part | None = None
    prefix: Part | None = None
    heads: int = 0

    def __post_init__(self) -> None:
        if not _ROLE.fullmatch(self.role):
            raise SiteError(f"'{self.role}' is not a role; see speechadapt/encoders/sites.py.")


def at(
    role: str,
    path: str,
    dim_in: int,
    dim_out: int,
    kind: str = "Linear",
    conv: ConvShape | None = None,
) -> Site:
    """Return the site that reads and writes one and the same module.

    Args:
        role: Its role.
        path: The module's path, relative to the transformers model.
        dim_in: Width of the module's input.
        dim_out: Width of the module's output.
        kind: The module's class name.
        conv: Its shape, where it is a convolution.
    """
    return Site(role, path, path, dim_in, dim_out, kind=kind, conv=conv)


def with_heads(sites: Iterable[Site], heads: int) -> list[Site]:
    """Return the sites with the number of heads at every self-attention and at its maps.

    Args:
        sites: An encoder's sites.
        heads: Attention heads of every layer.
    """
    return [replace(one, heads=heads) if _ATTENTION.fullmatch(one.role) else one for one in sites]


def by_role(sites: Iterable[Site]) -> dict[str, Site]:
    """Return the sites as a table by role, in the same order."""
    return {site.role: site for site in sites}


def select(sites: Iterable[Site], patterns: Iterable[str]) -> list[Site]:
    """Return the sites that match any pattern, in the encoder's order.

    Args:
        sites: The encoder's sites.
        patterns: Roles, with `*` for any part, and without `layer.*.` if wanted (`attn.q` means
            `layer.*.attn.q`). On a Conformer `ffn` means `ffn1` and `ffn2`.

    Raises:
        SiteError: A pattern matches nothing; the message names the roles on offer.
    """
    offered = list(sites)
    chosen: set[str] = set()
    for pattern in patterns:
        hits = {site.role for site in offered if _matches(site.role, pattern)}
        if not hits:
            kinds = {re.sub(r"\.\d+\.", ".*.", site.role) for site in offered}
            raise SiteError(f"no site has the role '{pattern}'.{near_misses(pattern, kinds)}")
        chosen |= hits
    return [site for site in offered if site.role in chosen]


@cache
def _matches(role: str, pattern: str) -> bool:
    candidates = [pattern]
    if not pattern.startswith(("layer.", "stem.", "encoder", "*")):
        candidates.append(f"layer.*.{pattern}")
    widened = [
        re.sub(r"(^|\.)ffn(\.|$)", rf"\g<1>{name}\2", candidate)
        for candidate in candidates
        for name in ("ffn", "ffn1", "ffn2")
    ]
    return any(_parts_match(role.split("."), name.split(".")) for name in widened)


def _parts_match(role: list[str], pattern: list[str]) -> bool:
    return len(role) == len(pattern) and all(
        fnmatch.fnmatchcase(part, wanted) for part, wanted in zip(role, pattern, strict=True)
    )

"""Putting compositions on an encoder whose adapters are attached already.

    names = compose(encoder, "fuse(digits, orders, method=gated)", name="both")
    with active(encoder, ["both", "digits", None]):        # rows may still differ

The adapters composed stay attached under their own names, unchanged and usable alone. What a kind
adds of its own is one more attachment, on the same hooks, chosen for rows like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from speechadapt.adapters.attach import install, remove, use
from speechadapt.adapters.composition import Composed, Composition, Single, parse
from speechadapt.adapters.handle import AdapterSet, Handle, attachment, attachments
from speechadapt.adapters.kinds import Kind, Part, Request, kind_of
from speechadapt.adapters.mixture import Meter, Mixture, SitePart, Weigher
from speechadapt.adapters.routing import Names
from speechadapt.adapters.spec import Method
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError, ShapeError, SiteError
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site

MakeWeigher = Callable[[Site, Any, int], Weigher]
CountWeigher = Callable[[Site, Any], int]


def compose(
    encoder: Encoder,
    composition: str | Composition,
    *,
    name: str | None = None,
    clips: Sequence[Clip] = (),
    activate: bool = True,
) -> Names:
    """Compose attached adapters.

    On any error the encoder is as it was.

    Args:
        encoder: With every adapter of the composition attached under the name used there.
        composition: A value, or its text.
        name: What to call the attachment that the outermost composition makes, if it makes one.
        clips: Recordings, for kinds that look at what the adapters do with them.
        activate: Whether it acts wherever no `active` says otherwise.

    Returns:
        The names that act, one after the other: what `active` takes.

    Raises:
        CatalogError: There is no such kind, or an adapter is not attached.
        ConfigError: The composition or its settings do not fit its adapters.
        SiteError: Its adapters stand at unlike roles.
    """
    value = parse(composition) if isinstance(composition, str) else composition
    before = set(attachments(encoder))
    try:
        names = _realise(encoder, value, name, clips)
    except Exception:
        for fresh in set(attachments(encoder)) - before:
            remove(encoder, fresh)
        raise
    if activate:
        use(encoder, names)
    return names


def _realise(
    encoder: Encoder, value: Composition, name: str | None, clips: Sequence[Clip]
) -> Names:
    if isinstance(value, Single):
        handle = attachment(encoder, value.name)
        if handle.merged:
            raise ConfigError(
                f"adapter '{value.name}' was to be composed, but is merged into the weights. "
                "Use unmerge(encoder, name) first."
            )
        return (value.name,)
    kind = kind_of(value.kind)
    config = _settings(value, kind)
    _check_parts(value, kind)
    parts = tuple(
        Part(str(part), _realise(encoder, part, None, clips) if kind.of == "adapters" else ())
        for part in value.parts
    )
    called = name or default_name(value)
    return kind.build(
        Request(encoder, called, str(value), parts, value.weights, config, tuple(clips))
    )


def _settings(value: Composed, kind: Kind) -> Any:
    config: Any
    config, problems = bind(kind.config, value.settings, value.kind)
    if problems:
        raise ConfigError(f"'{value}': {' '.join(problems)}")
    return config


def _check_parts(value: Composed, kind: Kind) -> None:
    if len(value.parts) < kind.least:
        raise ConfigError(
            f"'{value}' takes {kind.least} or more {kind.of}, got {len(value.parts)}."
        )
    labels = [str(part) for part in value.parts]
    twice = next((one for one in labels if labels.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(f"'{value}' names '{twice}' more than once. Name each adapter once.")
    if value.weights and not kind.weighted:
        raise ConfigError(
            f"'{value}' gives weights, which {value.kind} finds by itself. Leave them out, or use "
            "average(...)."
        )


def default_name(value: Composition) -> str:
    """Return what the attachment of a composition is called where nobody says."""
    return re.sub(r"[^\w.]+", "-", str(value), flags=re.ASCII).strip("-._")


def mix(
    request: Request,
    weigher: MakeWeigher,
    count: CountWeigher,
    source: str,
    *,
    same_sites: bool,
    needs: frozenset[str] = frozenset(),
    penalty: Callable[[Sequence[Any]], Any] | None = None,
) -> Handle:
    """Attach a mixture of the parts of a composition.

    Args:
        request: The composition.
        weigher: Makes who weighs at a site, from the site, the settings and the number of parts.
        count: Closed-form number of its parameters at a site.
        source: Paper and section.
        same_sites: Whether all parts must stand at the same roles.
        needs: Names of the conditions that the weighers read.
        penalty: An extra loss from the mixtures.

    Returns:
        The attachment, installed and not yet active.

    Raises:
        SiteError: The parts stand at unlike roles.
        ConfigError: A part cannot be mixed with others at some site.
    """
    handles = [[attachment(request.encoder, name) for name in one.names] for one in request.parts]
    if same_sites:
        _check_roles(request, handles)
    roles = {site.role for part in handles for one in part for site in _sites(one)}
    sites = [site for role, site in request.encoder.sites.items() if role in roles]
    tables = [[one.module.by_role() for one in part] for part in handles]

    def at(site: Site) -> list[SitePart]:
        return [
            SitePart(part.label, tuple(one[site.role] for one in table if site.role in one))
            for part, table in zip(request.parts, tables, strict=True)
        ]

    def make(site: Site, config: Any, shared: object = None) -> Mixture:
        return Mixture(site, at(site), weigher(site, config, len(request.parts)))

    method = Method(
        config=type(request.config),
        adapter=make,
        roles=tuple(site.role for site in sites),
        source=source,
        tiny=request.config,
        parameters=count,
        starts_as_identity=False,
        penalty=penalty,
        needs=needs.union(*(one.method.needs for part in handles for one in part)),
    )
    return _installed(request, method, sites)


def _installed(request: Request, method: Method, sites: Sequence[Site]) -> Handle:
    encoder = request.encoder
    module = AdapterSet(sites, (), method, request.config)
    first = next(encoder.model.parameters())
    module.to(device=first.device, dtype=first.dtype)
    module.train(encoder.model.training)
    handle = Handle(
        request.name,
        request.text.partition("(")[0],
        method,
        request.config,
        method.roles,
        "none",
        tuple(sites),
        (),
        module,
        encoder,
        composition=request.text,
    )
    install(handle, activate=False)
    return handle


def query_width(site: Site) -> int:
    """Return the width of what a weigher hears at a site (see `Mixture.leave`)."""
    return site.dim_in if site.conv is None else site.dim_out


def _sites(handle: Handle) -> tuple[Site, ...]:
    return (*handle.sites, *handle.norm_sites)


def _check_roles(request: Request, handles: Sequence[Sequence[Handle]]) -> None:
    first, *others = [{site.role for one in part for site in _sites(one)} for part in handles]
    for part, roles in zip(request.parts[1:], others, strict=True):
        if roles == first:
            continue
        odd = min(roles ^ first)
        has, lacks = (part, request.parts[0]) if odd in roles else (request.parts[0], part)
        raise SiteError(
            f"'{request.text}' wants adapters at the same roles, but '{has.label}' stands at "
            f"'{odd}' and '{lacks.label}' does not. Leave one of them out, or use average(...)."
        )


@contextmanager
def weights_noted(handle: Handle, learns: bool = False) -> Iterator[Meter]:
    """Note the weights of every row while the encoder is called inside a `with` block.

    Args:
        handle: A mixture that acts on all rows.
        learns: Whether gradients flow through what is noted.

    Yields:
        What is noted.

    Raises:
        ShapeError: The attachment weighs nothing.
    """
    mixtures = [one for one in handle.module.adapters() if isinstance(one, Mixture)]
    if not mixtures:
        raise ShapeError(
            f"the weights of '{handle.name}' were asked for, but it is a single adapter. "
            "Ask a composition such as fuse(a, b)."
        )
    meter = Meter(learns)
    for one in mixtures:
        one.meter = meter
    try:
        yield meter
    finally:
        for one in mixtures:
            one.meter = None

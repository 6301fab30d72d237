"""Attaching adapters to a frozen encoder, choosing which of them act, and taking them away.

    attach(encoder, "lora", name="german")
    with active(encoder, ["german", None]):      # the first row with it, the second without
        frames, lengths = encoder.encode(clips)

The encoder's modules, their names and their weights stay as they are. An encoder serves one call at
a time: the selection belongs to it, not to the thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from speechadapt.adapters import norms
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import AdapterSet, Handle, attachment, attachments, router_of
from speechadapt.adapters.hooks import rebuild
from speechadapt.adapters.merge import unmerge
from speechadapt.adapters.routing import Names, Router, Selection
from speechadapt.adapters.spec import Method
from speechadapt.core.bind import bind, check
from speechadapt.core.errors import ConfigError, SiteError, near_misses
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site, select

Row: TypeAlias = str | Names | None
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def attach(
    encoder: Encoder,
    method: str,
    *,
    name: str | None = None,
    config: Any = None,
    roles: Sequence[str] | None = None,
    train_norms: str = "none",
    dtype: torch.dtype | None = None,
    activate: bool = True,
) -> Handle:
    """Attach a method's adapters to an encoder and freeze its own weights.

    On any error the encoder is as it was.

    Args:
        encoder: The encoder; its weights stop taking gradients.
        method: A name of the catalogue.
        name: What to call the attachment; the method's name where None.
        config: The method's settings: its dataclass, a mapping, or None for the defaults.
        roles: Role patterns, the method's own where None; one that ends in `?` may match nothing.
        train_norms: Also train a gain and shift at layer norms: `none`, `adapted` (those that feed
            an adapted branch) or `all`.
        dtype: Precision of the adapters; the encoder's own where None. Another one needs autocast.
        activate: Whether the attachment acts, alone, wherever no `active` says otherwise.

    Returns:
        The attachment, with the sites it hit.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting is out of range, or the name is taken.
        SiteError: A pattern matches nothing, or the method cannot stand at a site.
    """
    handle = build(
        encoder, method, name=name, config=config, roles=roles, train_norms=train_norms, dtype=dtype
    )
    prepare(handle)
    install(handle, activate=activate)
    return handle


def build(
    encoder: Encoder,
    method: str,
    *,
    name: str | None = None,
    config: Any = None,
    roles: Sequence[str] | None = None,
    train_norms: str = "none",
    dtype: torch.dtype | None = None,
) -> Handle:
    """Make an attachment without touching the encoder; the arguments are those of `attach`.

    Raises:
        CatalogError: There is no such method.
        ConfigError: A setting is out of range, or the name is taken.
        SiteError: A pattern matches nothing, or the method cannot stand at a site.
    """
    found = method_of(method)
    settings = _settings(method, found, config)
    found = found.of(settings)
    called = method if name is None else name
    _check_name(encoder, called)
    patterns = tuple(found.roles if roles is None else roles)
    sites = choose_sites(encoder, patterns)
    norm_sites = norms.norm_sites(encoder, train_norms, sites)
    module = AdapterSet(sites, norm_sites, found, settings)
    _check_taps(encoder, module)
    first = next(encoder.model.parameters())
    module.to(device=first.device, dtype=dtype or first.dtype)
    module.train(encoder.model.training)
    return Handle(
        called,
        method,
        found,
        settings,
        patterns,
        train_norms,
        tuple(sites),
        tuple(norm_sites),
        module,
        encoder,
    )


def _check_name(encoder: Encoder, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"an adapter was to be called '{name}'. Use letters, digits, '_', '-' and '.'."
        )
    if name in attachments(encoder):
        raise ConfigError(
            f"the encoder has an adapter called '{name}' already. Remove it first, or give "
            "another name."
        )


def choose_sites(encoder: Encoder, patterns: Sequence[str]) -> list[Site]:
    """Return the sites that role patterns hit, in the encoder's order.

    Args:
        encoder: Whose sites.
        patterns: See `sites.select`; one that ends in `?` may match nothing.

    Raises:
        SiteError: A pattern without `?` matches nothing, or none of them anything.
    """
    wanted: set[str] = set()
    for pattern in patterns:
        try:
            hits = select(encoder.sites.values(), [pattern.removesuffix("?")])
        except SiteError:
            if not pattern.endswith("?"):
                raise
            continue
        wanted |= {site.role for site in hits}
    if not wanted:
        raise SiteError(
            f"adapter roles {list(patterns)} were asked for, but {encoder.family} has none of "
            f"them.{near_misses(patterns[0] if patterns else '', _kinds(encoder))}"
        )
    return [site for role, site in encoder.sites.items() if role in wanted]


def _kinds(encoder: Encoder) -> set[str]:
    return {re.sub(r"\.\d+\.", ".*.", role) for role in encoder.sites}


def _settings(name: str, method: Method, config: Any) -> Any:
    if config is None:
        config = method.config()
    if isinstance(config, Mapping):
        config, problems = bind(method.config, config, "adapter")
    elif isinstance(config, method.config):
        problems = check(config, "adapter")
    else:
        raise ConfigError(
            f"adapter '{name}' takes a {method.config.__name__}, got a {type(config).__name__}."
        )
    if problems:
        raise ConfigError(" ".join(problems))
    return config


def _check_taps(encoder: Encoder, module: AdapterSet) -> None:
    for role, adapter in module.by_role().items():
        if adapter.taps and encoder.sites[role].tap is None:
            raise SiteError(
                f"the adapter at '{role}' reads the residual stream before the norm, but "
                f"{encoder.family} has no norm there. Choose roles such as attn, ffn or conv, or "
                "let it read the site's own input."
            )


def prepare(handle: Handle) -> None:
    """Let the method read each frozen module once."""
    if handle.method.prepare is None:
        return
    by_role = handle.module.by_role()
    with torch.no_grad():
        for site in handle.sites:
            handle.method.prepare(
                by_role[site.role], handle.encoder.model.get_submodule(site.write)
            )


def install(handle: Handle, activate: bool = True) -> None:
    """Put an attachment made by `build` in place and freeze the encoder's weights.

    Args:
        handle: The attachment.
        activate: Whether it acts, alone, wherever no `active` says otherwise.

    Raises:
        ConfigError: The name was taken since.
    """
    encoder = handle.encoder
    _check_name(encoder, handle.name)
    router = encoder.attached if isinstance(encoder.attached, Router) else Router(encoder)
    encoder.attached = router
    router.handles[handle.name] = handle
    encoder.followers.append(handle.module)
    encoder.model.requires_grad_(False)
    by_role = handle.module.by_role()
    both = sorted([*handle.sites, *handle.norm_sites], key=lambda site: router.order[site.role])
    adapters = [(site, by_role[site.role]) for site in both]
    router.place(handle.name, adapters, handle.method.needs, handle.streams)
    rebuild(router, encoder)
    if activate:
        router.default = router.selection = Selection(((handle.name,),))
    router.refresh()


def use(encoder: Encoder, names: Row | list[Row]) -> None:
    """Choose what acts wherever no `active` says otherwise.

    Args:
        encoder: The encoder.
        names: As for `active`.

    Raises:
        CatalogError: No adapter of a name is attached.
    """
    selection = _selection(encoder, names, {})
    if isinstance(encoder.attached, Router):
        encoder.attached.default = encoder.attached.selection = selection
        encoder.attached.refresh()


@contextmanager
def active(
    encoder: Encoder, names: Row | list[Row], conditions: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Choose which adapters act inside a `with` block.

    Args:
        encoder: The encoder.
        names: A name for all rows, None for no adapter, a tuple of names that act one after the
            other, or a list with one of these for each row of the batch.
        conditions: Values by name that methods with `needs` read, one per row.

    Raises:
        CatalogError: No adapter of a name is attached.
        ConfigError: A condition that an adapter needs is missing.
    """
    selection = _selection(encoder, names, conditions or {})
    router = encoder.attached
    if not isinstance(router, Router):
        yield
        return
    before = router.selection
    router.choose(selection)
    try:
        yield
    finally:
        router.selection = before
        router.refresh()


def _selection(
    encoder: Encoder, names: Row | list[Row], conditions: Mapping[str, Any]
) -> Selection:
    uniform = not isinstance(names, list)
    rows = tuple(_row(one) for one in names) if isinstance(names, list) else (_row(names),)
    selection = Selection(rows, uniform, conditions)
    for name in sorted(selection.names()):
        attachment(encoder, name)
    return selection


def _row(names: Row) -> Names:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def remove(encoder: Encoder, name: str) -> Handle:
    """Take an attachment away; the encoder is then as it was without it, bit for bit.

    Where it was merged in memory, the weights it was added to are put back.

    Args:
        encoder: The encoder.
        name: The attachment's name.

    Returns:
        The attachment, whose adapters are kept.

    Raises:
        CatalogError: The encoder has none of that name.
    """
    handle = attachment(encoder, name)
    router = router_of(encoder)
    unmerge(encoder, name)
    del router.handles[name]
    encoder.followers = [one for one in encoder.followers if one is not handle.module]
    router.displace(name)
    router.forget(name)
    rebuild(router, encoder)
    router.refresh()
    return handle

"""The hooks by which adapters act on an encoder whose modules stay as they are.

Only modules where an adapter reads or writes get one. Where nothing is selected a hook returns at
once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.routing import Router, Station
from speechadapt.encoders.base import Encoder


def rebuild(router: Router, encoder: Encoder) -> None:
    """Register the hooks that the present adapters need, and no others.

    What torch.compile has compiled so far is compiled anew at its next call: it does not notice
    hooks that come or go, so that the adapters would silently do nothing.

    Args:
        router: Holds the adapters and the hooks.
        encoder: The encoder it directs.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    for hook in router.hooks:
        hook.remove()
    router.hooks = []
    layers = [one for one in encoder.model.modules() if hasattr(one, "gradient_checkpointing")]
    if not router.stations:
        unwatch(layers)
        return
    begin = Begin(router, layers)
    router.hooks.append(encoder.register_forward_pre_hook(begin, with_kwargs=True))
    router.hooks.append(encoder.register_forward_hook(End(router), with_kwargs=True))
    stations = sorted(router.stations.values(), key=lambda one: one.order)
    for path, (before, after) in _by_path(router, stations).items():
        module = encoder.model.get_submodule(path)
        if before.needed():
            router.hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if after.stations:
            router.hooks.append(module.register_forward_hook(after, with_kwargs=True))


def watch(router: Router, layers: Sequence[Any]) -> None:
    """Make the layers that are checkpointed now remember the rows of each call.

    Args:
        router: Knows the rows.
        layers: Modules that can be checkpointed.
    """
    for layer in layers:
        if layer.gradient_checkpointing and layer.training:
            inner = layer.__dict__.get("_gradient_checkpointing_func")
            if inner is not None and not isinstance(inner, Checkpoint):
                layer._gradient_checkpointing_func = Checkpoint(router, inner)


def unwatch(layers: Sequence[Any]) -> None:
    """Give the layers their own checkpointing functions back.

    Args:
        layers: Modules that can be checkpointed.
    """
    for layer in layers:
        watched = layer.__dict__.get("_gradient_checkpointing_func")
        if isinstance(watched, Checkpoint):
            layer._gradient_checkpointing_func = watched.inner


class Begin:
    """Called before the encoder: sorts its rows."""

    def __init__(self, router: Router, layers: list[Any]) -> None:
        self.router = router
        self.layers = layers

    def __call__(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand the batch to the router; return its streams, or None where the rows stay."""
        features, lengths = _batch(args, kwargs)
        batch = self.router.begin(encoder, features, lengths)
        if (self.router.groups or self.router.apart) and torch.is_grad_enabled():
            watch(self.router, self.layers)
        return None if batch[0] is features else (batch, {})


class End:
    """Called after the encoder: joins streams to rows again, and forgets the rows' masks."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __call__(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Leave the selection as it is without a batch; return the caller's rows."""
        return self.router.end(encoder, _batch(args, kwargs), output)


def _batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return features and lengths, given by position or by keyword."""
    features = args[0] if args else kwargs["features"]
    return features, args[1] if len(args) > 1 else kwargs["lengths"]


class Before:
    """Called before a module: keeps taps, lets adapters enter, writes inputs.

    Args:
        router: Directs the rows.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.taps: list[Station] = []
        self.reads: list[Station] = []
        self.writes: list[Station] = []

    def needed(self) -> bool:
        """Return whether anything is to be done before the module."""
        return bool(self.taps or self.reads or self.writes)

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return changed arguments, or None where they stay."""
        router = self.router
        if not router.groups:
            return None
        key = None if args else _states_key(kwargs)
        first = x = args[0] if key is None else kwargs[key]
        for station in self.taps:
            router.seen[f"{station.site.role}|tap"] = x
        for station in self.reads:
            x = router.enter(station, x)
            if station.is_span:
                router.seen[station.site.role] = x
            passage = router.choose_frames(station, x) if station.any_arounds() else None
            if passage is not None:
                part = passage.part(station.site)
                assert part is not None  # an adapter that chooses asked for it when it was made
                router.seen[station.site.role] = x
                router.passages[station.site.role] = passage
                args, kwargs = passage.arguments(part, x, args, kwargs)
                x = passage.gather(x)
        for station in self.writes:
            x = router.leave(station, router.seen.pop(station.site.role, None), x)
        if x is first:
            return None
        return ((x, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: x})


class After:
    """Called after a module: lets adapters change what came out.

    Args:
        router: Directs the rows.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.stations: list[Station] = []

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Return a changed output in the form it had, or None where it stays."""
        router = self.router
        if not router.groups:
            return None
        several = isinstance(output, tuple)
        first = y = output[0] if several else output
        for station in self.stations:
            passage = router.passages.pop(station.site.role, None)
            if station.is_span or passage is not None:
                x = router.seen.pop(station.site.role, None)
            else:
                x = args[0] if args else kwargs[_states_key(kwargs)]
            if passage is not None:
                assert x is not None  # kept together with the passage
                y = passage.put_back(y, x.shape[1])
            y = router.leave(station, x, y)
        if y is first:
            return None
        return (y, *output[1:]) if several else y


def _states_key(kwargs: dict[str, Any]) -> str:
    """Return the name under which a module was given its states, where not by position."""
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))


class Checkpoint:
    """A layer's checkpointing function that runs again later with the rows of its first run.

    The layer is computed again in the backward pass, when another selection may be in force.

    Args:
        router: Whose rows are kept.
        inner: The checkpointing function that transformers gave the layer.
    """

    def __init__(self, router: Router, inner: Callable[..., Any]) -> None:
        self.router = router
        self.inner = inner

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` under the layer's own checkpointing."""
        if _is_reentrant(self.inner) and torch.is_grad_enabled():
            args = _with_gradient(args)
        again = _Again(self.router, function, args)
        return self.inner(again, *args)


class _Again:
    def __init__(self, router: Router, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.router = router
        self.function = function
        self.args = args
        self.groups = router.groups
        self.seen = dict(router.seen)

    def __call__(self, *args: Any) -> Any:
        router = self.router
        before = router.groups, router.seen
        # re-entrant checkpointing hands in copies of the arguments, and what was read must be those
        swap = {id(old): new for old, new in zip(self.args, args, strict=True)}
        router.groups = self.groups
        router.seen = {role: swap.get(id(x), x) for role, x in self.seen.items()}
        try:
            return self.function(*args)
        finally:
            router.groups, router.seen = before


def _is_reentrant(inner: Callable[..., Any]) -> bool:
    return bool(getattr(inner, "keywords", {}).get("use_reentrant", False))


def _with_gradient(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with one that requires a gradient.

    Re-entrant checkpointing gives no gradient to a layer whose inputs require none, as behind a
    frozen stem.
    """
    tensors = [one for one in args if isinstance(one, Tensor)]
    if not tensors or any(one.requires_grad for one in tensors):
        return args
    first = next(place for place, one in enumerate(args) if one is tensors[0])
    return (*args[:first], args[first].detach().requires_grad_(), *args[first + 1 :])


def _by_path(router: Router, stations: Sequence[Station]) -> dict[str, tuple[Before, After]]:
    """Sort what is to be done by the module it is done at, in the order in which it is done."""
    found: dict[str, tuple[Before, After]] = {}

    def at(path: str) -> tuple[Before, After]:
        return found.setdefault(path, (Before(router), After(router)))

    for station in stations:
        site = station.site
        if station.any_taps():
            assert site.tap is not None  # attach refuses to tap where there is no norm
            at(site.tap)[0].taps.append(station)
        chooses = station.any_arounds()
        if chooses or station.any_enters() or (station.is_span and station.any_leaves()):
            at(site.read)[0].reads.insert(0, station)  # the outermost site enters first
        if chooses or station.any_leaves():
            before, after = at(site.write)
            (before.writes if site.writes_input else after.stations).append(station)
    return found

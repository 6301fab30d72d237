"""The frozen layers below the first adapter: computed once per input, kept, and gone on from.

What the layers below an adapter make of an input never changes while it is trained. `FrozenPrefix`
cuts an encoder there without touching its modules; `StateCache` keeps what comes out, in memory or
in files; `Reuse` puts the two together for a task.

A batch gone on from is equal, bit for bit, to the batch computed from the start. Rows computed one
by one and put together are equal to the batch up to rounding alone, because sums over a padded
batch are taken in another order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.encoders.base import Encoder

StateDtype = Literal["fp32", "fp16"]
Entry = dict[str, Tensor]

_LAYER = re.compile(r"layer\.(\d+)\.")


def layer_count(encoder: Encoder) -> int:
    """Return the number of an encoder's layers."""
    return 1 + max(int(found[1]) for role in encoder.sites if (found := _LAYER.match(role)))


def frozen_depth(encoder: Encoder, handle: Handle | None) -> int:
    """Return how many layers lie below everything that is trained.

    Args:
        encoder: The encoder.
        handle: What is trained on it; None where that is a head alone.

    Returns:
        0 where the stem or the first layer is adapted or rows become streams, which are rows of
        the lowest layer too; all layers where none is adapted.
    """
    most = layer_count(encoder)
    if handle is None:
        return most
    if handle.streams > 1:
        return 0
    # a method at the whole encoder reads what goes into the first layer; a norm there reads nothing
    depths = [_depth(site.role, 0) for site in handle.sites]
    depths += [_depth(site.role, most) for site in handle.norm_sites]
    return min(depths, default=most)


def _depth(role: str, otherwise: int) -> int:
    found = _LAYER.match(role)
    if found:
        return int(found[1])
    return 0 if role.startswith("stem.") else otherwise


class FrozenPrefix:
    """An encoder cut into its stem and first layers, and the rest.

    Args:
        encoder: The encoder, frozen, in evaluation mode.
        depth: Layers of the first part, at least 1.
    """

    def __init__(self, encoder: Encoder, depth: int) -> None:
        self.encoder = encoder
        self.depth = depth
        paths = [encoder.sites[f"layer.{n}.end"].read for n in range(layer_count(encoder))]
        layers = [encoder.model.get_submodule(path) for path in paths]
        self._below, self._above = layers[:depth], layers[depth:]
        stem = [site for role, site in encoder.sites.items() if role.startswith("stem.")]
        self._stem = {encoder.model.get_submodule(site.write): _Shaped() for site in stem}

    def states(self, features: Tensor, lengths: Lengths) -> Float[Tensor, "batch positions dim"]:
        """Compute the first part.

        Args:
            features: As the encoder's `extract` returns them.
            lengths: Valid feature frames per row.

        Returns:
            The residual stream after the first part, padding included.
        """
        found: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found.append(output)

        hook = self._below[-1].register_forward_hook(keep)
        try:
            with (
                torch.no_grad(),
                active(self.encoder, None),
                _instead(dict.fromkeys(self._above, _pass_on)),
            ):
                self.encoder(features, lengths)
        finally:
            hook.remove()
        return found[0]

    def resume(
        self,
        states: Float[Tensor, "batch positions dim"],
        features: Tensor,
        lengths: Lengths,
    ) -> tuple[Frames, Lengths]:
        """Go on from the states of the first part, with the adapters in force.

        Args:
            states: As `states` returned them.
            features: Anything in the shape of the features they were computed from.
            lengths: Valid feature frames per row.

        Returns:
            What the encoder would return for those features.
        """
        others: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(self._below[:-1], _pass_on)
        others[self._below[-1]] = lambda *args, **kwargs: states
        for module, shaped in self._stem.items():
            others[module] = shaped.like(module)
        with _instead(others):
            frames, valid = self.encoder(features, lengths)
        return frames, valid


def _pass_on(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return states


class _Shaped:
    """Gives zeros in the shape that a module's output has, after it was run once."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[int, ...], torch.Size] = {}

    def like(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        forward = module.forward

        def zeros(x: Tensor) -> Tensor:
            key = tuple(x.shape[1:])
            if key not in self._shapes:
                with torch.no_grad():
                    self._shapes[key] = forward(x[:1]).shape[1:]
            return x.new_zeros(()).expand(x.shape[0], *self._shapes[key])

        return zeros


@contextmanager
def _instead(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules compute something else for a while."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


@runtime_checkable
class StateCache(Protocol):
    """Keeps what a prefix computed, by key."""

    def __contains__(self, key: str) -> bool:
        """Say whether something is kept under a key."""
        ...

    def get(self, key: str) -> Entry:
        """Return what is kept under a key."""
        ...

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, whose `states` may be rounded."""
        ...

    def size(self) -> tuple[int, int]:
        """Return the number of entries and of bytes."""
        ...


class MemoryCache:
    """States in main memory.

    Args:
        dtype: What states are kept in; `fp32` keeps them as they were computed.
    """

    def __init__(self, dtype: StateDtype = "fp32") -> None:
        self._dtype = dtype
        self._entries: dict[str, Entry] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry:
        """Return what is kept under a key."""
        return self._entries[key]

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry."""
        self._entries[key] = _kept(entry, self._dtype)

    def size(self) -> tuple[int, int]:
        """Return the number of entries and of bytes."""
        parts = [part for entry in self._entries.values() for part in entry.values()]
        return len(self._entries), sum(part.nbytes for part in parts)


class DiskCache:
    """States in files, one an entry, which later runs with the same prefix find again.

    Args:
        folder: Where they lie; made where it is missing.
        dtype: What states are kept in; `fp32` keeps them as they were computed.
    """

    def __init__(self, folder: Path, dtype: StateDtype = "fp32") -> None:
        self._folder = folder
        self._dtype = dtype
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> Entry:
        """Return what is kept under a key.

        Raises:
            CheckpointError: The file cannot be read.
        """
        path = self._path(key)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path.name} of the prefix cache {path.parent} cannot be read: {error}. "
                "Delete that file; it is computed again."
            ) from error

    def put(self, key: str, entry: Entry) -> None:
        """Write an entry, whole or not at all."""
        kept = _kept(entry, self._dtype)
        atomic_write(self._path(key), lambda path: save_file(kept, path))

    def size(self) -> tuple[int, int]:
        """Return the number of entries and of bytes."""
        files = list(self._folder.glob("*.safetensors"))
        return len(files), sum(path.stat().st_size for path in files)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


def _kept(entry: Entry, dtype: StateDtype) -> Entry:
    plain = {name: part.detach().cpu().contiguous() for name, part in entry.items()}
    if dtype == "fp16":
        plain["states"] = plain["states"].half()
    return plain


class Reuse:
    """Encodes inputs that come again, the first part of the encoder once only.

    Args:
        prefix: The encoder, cut.
        cache: Where states are kept.

    Attributes:
        seconds: Time spent on the first part so far.
    """

    def __init__(self, prefix: FrozenPrefix, cache: StateCache) -> None:
        self.prefix = prefix
        self.cache = cache
        self.seconds = 0.0

    def whole(
        self, key: str, features: Tensor | None, lengths: Lengths | None
    ) -> tuple[Frames, Lengths]:
        """Encode a batch as a whole; equal, bit for bit, to encoding it from the start.

        Args:
            key: Names the batch.
            features: Its features; not needed where the key is kept.
            lengths: Valid feature frames per row, likewise.
        """
        return self._go_on(self._entry(key, features, lengths))

    def each(
        self, keys: Sequence[str], fresh: Mapping[int, tuple[Tensor, Tensor]]
    ) -> tuple[Frames, Lengths]:
        """Encode a batch whose rows are kept one by one.

        Args:
            keys: Name the rows.
            fresh: Features and length, as a batch of one, of the rows by number that are not kept.
        """
        nothing = (None, None)
        entries = [
            self._entry(key, *(fresh.get(number, nothing))) for number, key in enumerate(keys)
        ]
        longest = max(entry["states"].shape[1] for entry in entries)
        states = [
            nn.functional.pad(entry["states"], (0, 0, 0, longest - entry["states"].shape[1]))
            for entry in entries
        ]
        return self._go_on(
            {
                "states": torch.cat(states),
                "lengths": torch.cat([entry["lengths"] for entry in entries]),
                "shape": torch.stack([entry["shape"] for entry in entries]).amax(0),
            }
        )

    def _entry(self, key: str, features: Tensor | None, lengths: Lengths | None) -> Entry:
        if key not in self.cache:
            assert features is not None, f"neither states nor features of {key}"
            assert lengths is not None
            started = time.monotonic()
            states = self.prefix.states(features, lengths)
            shape = torch.tensor(features.shape[1:])
            self.cache.put(key, {"states": states, "lengths": lengths, "shape": shape})
            self.seconds += time.monotonic() - started
        return self.cache.get(key)

    def _go_on(self, entry: Entry) -> tuple[Frames, Lengths]:
        first = next(self.prefix.encoder.model.parameters())
        states = entry["states"].to(first.device)
        if states.dtype == torch.float16:
            states = states.to(first.dtype)
        features = first.new_zeros(()).expand(len(states), *entry["shape"].tolist())
        return self.prefix.resume(states, features, entry["lengths"].to(first.device))

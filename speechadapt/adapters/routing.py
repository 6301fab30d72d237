"""Which adapters act on which rows of a batch.

One router belongs to one encoder. It keeps the adapters by site and the selection in force. Where
all rows have the same adapters nothing is copied; otherwise the rows of a kind are taken out of the
batch, changed and put back.

A method may want several streams of a row (`Method.streams`). They are rows of the encoder's batch,
side by side, of which the caller gets the first. Where some rows of a batch are to be streams and
others not, the encoder is called once more for those that are, so that no row depends on how often
another one stands in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from speechadapt.adapters.condition import check_conditions, repeated, rows_of
from speechadapt.adapters.passage import Passage, joined
from speechadapt.adapters.spec import Adapter, Context, Way
from speechadapt.adapters.streams import streams_of
from speechadapt.core.errors import ConfigError, ShapeError, SiteError
from speechadapt.core.shapes import Lengths, Mask
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site

Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Adapters by row.

    Args:
        rows: Names for each row of a batch, or one entry for all rows whatever their number.
        uniform: Whether the one entry of `rows` is for all rows.
        conditions: Values by name, one per row.
    """

    rows: tuple[Names, ...] = ((),)
    uniform: bool = True
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Return every name that occurs."""
        return {name for names in self.rows for name in names}


@dataclass(frozen=True)
class Group:
    """Rows of one batch that have the same adapters.

    Args:
        names: Those adapters, in the order in which they act.
        rows: Indices of the rows; None where these are all rows.
        context: What the adapters may know.
    """

    names: Names
    rows: Tensor | None
    context: Context


class Station:
    """The adapters at one site, by name.

    Args:
        site: The site.
        order: Its place in the encoder's table.
    """

    def __init__(self, site: Site, order: int) -> None:
        self.site = site
        self.order = order
        self.adapters: dict[str, Adapter] = {}

    @property
    def is_span(self) -> bool:
        """Whether what is read must be kept until something is written."""
        return self.site.read != self.site.write or self.site.writes_input

    def any_enters(self) -> bool:
        """Return whether an adapter changes the input."""
        return any(type(one).enter is not Adapter.enter for one in self.adapters.values())

    def any_arounds(self) -> bool:
        """Return whether an adapter chooses the frames that go through."""
        return any(type(one).around is not Adapter.around for one in self.adapters.values())

    def any_leaves(self) -> bool:
        """Return whether an adapter changes the output."""
        return any(type(one).leave is not Adapter.leave for one in self.adapters.values())

    def any_taps(self) -> bool:
        """Return whether an adapter taps the residual stream."""
        return any(one.taps for one in self.adapters.values())


class Router:
    """Directs one encoder's rows to the adapters selected for them.

    Attributes:
        default: The selection in force outside of every `active`.
        groups: The rows of the present call by their adapters; empty where nothing acts.
        seen: What spans have read and not yet written, by role; taps under `role + "|tap"`.
        passages: The frames that are going through spans now, by role.
        streams: What each row becomes where that is more than one, by attachment.
        width: Streams of each row in the present call.
        apart: The rows that the present call leaves to calls of their own, by their adapters.
        calls: Where a count of the calls by role is kept while one is wanted.
        handles: The attachments by name.
        hooks: The hooks registered now.
        device: Where the rows of the last call were.
        merged: Names whose change is in the weights, in the order in which it came there.
        originals: The frozen tensors as they were before anything was merged, by path.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.order = {role: place for place, role in enumerate(encoder.sites)}
        self.stations: dict[str, Station] = {}
        self.needs: dict[str, frozenset[str]] = {}
        self.merged: list[str] = []
        self.originals: dict[str, Tensor] = {}
        self.default = Selection()
        self.selection = self.default
        self.groups: tuple[Group, ...] = ()
        self.seen: dict[str, Tensor] = {}
        self.passages: dict[str, Way] = {}
        self.streams: dict[str, int] = {}
        self.width = 1
        self.apart: dict[Names, list[int]] = {}
        self.calls: dict[str, int] | None = None
        self.handles: dict[str, Any] = {}
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.device = next(encoder.model.parameters()).device

    def place(
        self,
        name: str,
        adapters: Sequence[tuple[Site, Adapter]],
        needs: frozenset[str],
        streams: int = 1,
    ) -> None:
        """Put one attachment's adapters at their sites.

        Args:
            name: The attachment's name.
            adapters: Sites and what stands there.
            needs: Names of the conditions they read.
            streams: What each row becomes while they act.
        """
        for site, adapter in adapters:
            station = self.stations.setdefault(site.role, Station(site, self.order[site.role]))
            station.adapters[name] = adapter
        self.needs[name] = needs
        if streams > 1:
            self.streams[name] = streams

    def displace(self, name: str) -> None:
        """Take one attachment's adapters away again."""
        for station in self.stations.values():
            station.adapters.pop(name, None)
        self.stations = {role: one for role, one in self.stations.items() if one.adapters}
        self.needs.pop(name, None)
        self.streams.pop(name, None)

    def choose(self, selection: Selection) -> None:
        """Put a selection in force, for calls that do not pass through the encoder too.

        Raises:
            ConfigError: A condition that an adapter needs is not given.
        """
        check_conditions(self.needs, selection.names(), selection.conditions)
        self.selection = selection
        self.refresh()

    def refresh(self) -> None:
        """Bring the groups in line with the selection, for calls that pass the encoder by."""
        self.width, self.apart = 1, {}
        self.groups = self.grouped(None)

    def forget(self, name: str) -> None:
        """Strike a name from the selections in force."""
        for attribute in ("default", "selection"):
            old: Selection = getattr(self, attribute)
            rows = tuple(tuple(one for one in names if one != name) for names in old.rows)
            setattr(self, attribute, Selection(rows, old.uniform, old.conditions))

    def grouped(self, mask: Mask | None) -> tuple[Group, ...]:
        """Return the rows by their adapters.

        Args:
            mask: The mask of the residual stream.
        """
        given = self.selection.conditions
        members = self._members()
        groups = []
        for names, rows in members.items():
            if not names or names in self.apart:
                continue
            if len(members) == 1:
                each = repeated(given, self.width)
                groups.append(Group(names, None, Context(mask, each, streams=self.width)))
                continue
            index = torch.tensor(rows, device=self.device)
            part = None if mask is None else mask.index_select(0, index)
            groups.append(Group(names, index, Context(part, rows_of(given, rows))))
        return tuple(groups)

    def _members(self) -> dict[Names, list[int]]:
        """Return the rows by their adapters; one entry without rows where it is for all."""
        selection = self.selection
        if selection.uniform:
            return {self._unmerged(selection.rows[0]): []}
        members: dict[Names, list[int]] = {}
        for row, names in enumerate(selection.rows):
            members.setdefault(self._unmerged(names), []).append(row)
        return members

    def _unmerged(self, names: Names) -> Names:
        return tuple(name for name in names if name not in self.merged) if self.merged else names

    def begin(self, encoder: Encoder, features: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Prepare one call of the encoder: the rows, their masks, what checkpointing needs.

        Returns:
            The batch that the encoder is to take: each row as often as it has streams.

        Raises:
            ShapeError: The batch has another number of rows than the selection.
            ConfigError: A condition that an adapter needs is not given, or two adapters of one row
                make streams.
        """
        self.seen.clear()
        self.passages.clear()
        selection = self.selection
        if not selection.uniform and len(selection.rows) != features.shape[0]:
            raise ShapeError(
                f"adapters were selected for {len(selection.rows)} rows, but the batch has "
                f"{features.shape[0]}. Give one entry per row, or one name for all."
            )
        if self.needs:
            check_conditions(self.needs, selection.names(), selection.conditions)
        self.device = features.device
        self.width, self.apart = 1, {}
        members = self._members() if self.streams else {}
        if len(members) == 1:
            self.width = streams_of(next(iter(members)), self.streams)
            if self.width > 1:
                features = features.repeat_interleave(self.width, 0)
                lengths = lengths.repeat_interleave(self.width, 0)
        elif members:
            wide = {one for one in members if streams_of(one, self.streams) > 1}
            self.apart = {one: rows for one, rows in members.items() if one in wide}
        acts = any(self._unmerged(names) for names in selection.rows)
        self.groups = self.grouped(encoder.residual_mask(features, lengths)) if acts else ()
        return features, lengths

    def end(
        self, encoder: Encoder, batch: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """Finish one call of the encoder.

        Args:
            encoder: The encoder.
            batch: Features and lengths that it took.
            output: Frames and lengths that it gave.

        Returns:
            The frames and lengths of the caller's rows; None where they are what it gave.
        """
        self.seen.clear()
        self.passages.clear()
        width, apart = self.width, self.apart
        self.refresh()
        if width > 1:
            return output[0][::width], output[1][::width]
        if not apart:
            return None
        frames, valid = output
        selection = self.selection
        try:
            for names, rows in apart.items():
                index = torch.tensor(rows, device=self.device)
                self.selection = Selection((names,), True, rows_of(selection.conditions, rows))
                own, _ = encoder(*(one.index_select(0, index) for one in batch))
                frames = _put_back(frames, own, index, "encoder")
        finally:
            self.selection = selection
            self.refresh()
        return frames, valid

    def enter(self, station: Station, x: Tensor) -> Tensor:
        """Let the selected adapters of a site change what goes into it."""
        for group in self.groups:
            chosen = [station.adapters[n] for n in group.names if n in station.adapters]
            chosen = [one for one in chosen if type(one).enter is not Adapter.enter]
            if not chosen:
                continue
            self._count(station.site.role)
            part = x if group.rows is None else x.index_select(0, group.rows)
            for adapter in chosen:
                part = adapter.enter(part, group.context)
            x = _put_back(x, part, group.rows, station.site.role)
        return x

    def choose_frames(self, station: Station, x: Tensor) -> Way | None:
        """Return the frames that the selected adapters of a site send through; None for all.

        Args:
            station: The site and its adapters.
            x: Input at the read point.

        Raises:
            ConfigError: Two adapters of one row choose.
        """
        found: list[tuple[Tensor | None, Way]] = []
        for group in self.groups:
            chosen = [n for n in group.names if n in station.adapters]
            chosen = [n for n in chosen if type(station.adapters[n]).around is not Adapter.around]
            if len(chosen) > 1:
                raise ConfigError(
                    f"adapters '{chosen[0]}' and '{chosen[1]}' are both to choose the frames that "
                    f"go through '{station.site.role}'. Use one of them at a time."
                )
            for name in chosen:
                part = x if group.rows is None else x.index_select(0, group.rows)
                passage = station.adapters[name].around(part, group.context)
                if passage is not None:
                    found.append((group.rows, passage))
        if not found:
            return None
        if found[0][0] is None:
            return found[0][1]
        # a prefix goes ahead of the streams of a row, and those are all rows of their call
        pairs = [
            (rows, way) for rows, way in found if rows is not None and isinstance(way, Passage)
        ]
        return joined(pairs, x.shape[0], x.shape[1])

    def leave(self, station: Station, x: Tensor | None, y: Tensor) -> Tensor:
        """Let the selected adapters of a site change what comes out of it.

        Args:
            station: The site and its adapters.
            x: Input at the read point; None where the site is a span and nothing was read.
            y: Output at the write point, as the module gives it.
        """
        site, first = station.site, y
        scale = site.branch_scale
        for group in self.groups:
            chosen = [station.adapters[n] for n in group.names if n in station.adapters]
            if not chosen:
                continue
            self._count(site.role)
            rows = group.rows
            part = y if rows is None else y.index_select(0, rows)
            if scale != 1.0:
                part = part * scale
            for adapter in chosen:
                source = self._source(station, adapter, x)
                given = source if rows is None else source.index_select(0, rows)
                part = adapter.leave(given, part, group.context)
            if scale != 1.0:
                part = part / scale
            y = _put_back(y, part, rows, site.role)
        return y if y.dtype == first.dtype else y.to(first.dtype)

    def _count(self, role: str) -> None:
        if self.calls is not None:
            self.calls[role] = self.calls.get(role, 0) + 1

    def _source(self, station: Station, adapter: Adapter, x: Tensor | None) -> Tensor:
        source = self.seen.get(f"{station.site.role}|tap") if adapter.taps else x
        if source is None:
            raise SiteError(
                f"the adapter at '{station.site.role}' is to write, but its read point "
                f"'{station.site.read}' was passed over, as by layer drop in training. "
                "Freeze the encoder with freeze(), which switches that off."
            )
        return source


def _put_back(whole: Tensor, part: Tensor, rows: Tensor | None, role: str) -> Tensor:
    if rows is None:
        return part
    if part.shape[1:] != whole.shape[1:]:
        raise ShapeError(
            f"an adapter at '{role}' changed {list(whole.shape[1:])} to {list(part.shape[1:])} in "
            "some rows of a batch. Give all rows the same adapters."
        )
    return whole.index_copy(0, rows, part.to(whole.dtype))

"""The settings of a run on several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speechadapt.adapters import store
from speechadapt.adapters.compose.fuse import FuseConfig
from speechadapt.core.bind import bind
from speechadapt.core.limits import CountOrNone, NotNegative, Positive
from speechadapt.training.adapt.config import TranscribedConfig

WEIGHTS = store.WEIGHTS


@dataclass(frozen=True)
class Config(TranscribedConfig):
    """Everything a run on several tasks is made of, beside what every adaptation has.

    A task is a corpus of the data pack, or what a manifest's rows name in their field `task`.

    Args:
        tasks: The tasks trained on and scored; empty takes all. The head's symbols are always
            those of all.
        temperature: Of the mix: tasks are drawn in proportion to their number of utterances to
            the power of 1 / temperature; the higher, the more evenly.
        shots: Most training utterances of a task, chosen by a hash of id and seed; 0 takes all.
        parts: Adapters to be fused, folders by name; an empty folder makes a new one of `method`.
            Without parts `method` itself is trained.
        fusion: Settings of the fusion (see `adapters.compose.fuse`).
        learns: What is trained of a fusion: in `two_stage` the fusion, the parts being frozen; in
            `joint` both.
        route_weight: Weight of a second loss of a fusion that weighs: the cross-entropy of the
            weights of every row, averaged over its frames, with the part that has the name of its
            task. Only training is told the task. 0 leaves the fusion to the first loss alone.
        start: Folder of an adapter whose tensors are taken where name and shape are the same.
        head: Folder of a run whose head is taken and not trained; empty trains one along.
        compare: Score every part of a fusion, and the base, on every task at the end.
    """

    tasks: tuple[str, ...] = ()
    temperature: Positive = 1.0
    shots: CountOrNone = 0
    parts: Mapping[str, str] = field(default_factory=dict)
    fusion: Mapping[str, Any] = field(default_factory=dict)
    learns: Literal["two_stage", "joint"] = "two_stage"
    route_weight: NotNegative = 0.0
    start: str = ""
    head: str = ""
    compare: bool = True

    @property
    def fuses(self) -> bool:
        """Whether several adapters are fused."""
        return bool(self.parts) and self.arm == "adapter"

    def problems(self) -> list[str]:
        """Say which settings do not fit one another, the method, or the folders at hand."""
        found = super().problems()
        if self.batch.weights:
            found.append(
                "batch.weights was given, but tasks are mixed by size: set temperature=T instead."
            )
        if self.route_weight and not self.fuses:
            found.append(
                "route_weight was given, but nothing is fused. Name adapters in parts, or leave it "
                "out."
            )
        return found + (self._fusion_problems() if self.parts else [])

    def sources(self) -> dict[str, Path]:
        """Name the base's weights, and the adapters and the head that the run starts from."""
        named = {f"part/{name}": folder for name, folder in self.parts.items()}
        named |= {"start": self.start, "head": self.head}
        return super().sources() | {
            name: Path(folder).expanduser() / WEIGHTS for name, folder in named.items() if folder
        }

    def _fusion_problems(self) -> list[str]:
        if self.arm != "adapter":
            return [f"parts were given, but arm={self.arm} fuses none. Leave them out."]
        settings, found = bind(FuseConfig, self.fusion, "fusion")
        if len(self.parts) < 2:
            found.append(f"parts names {len(self.parts)} adapter; a fusion takes 2 or more.")
        if settings.method == "mean" and self.route_weight:
            found.append("route_weight teaches weights, which fusion.method=mean has none of.")
        if self.learns == "joint":
            return found
        fresh = [name for name, folder in self.parts.items() if not folder]
        if fresh:
            found.append(
                f"parts.{fresh[0]} names no folder, but learns=two_stage fuses trained adapters. "
                "Name its folder, or set learns=joint."
            )
        if settings.method == "mean" and self.head:
            found.append(
                "fusion.method=mean with learns=two_stage leaves nothing to train. Use "
                "`speechadapt adapters fuse --method mean`."
            )
        return found

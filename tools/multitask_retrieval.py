"""How well recordings find their adapter by sound, and whether strangers are left to the base.

One line of the results file: on the test recordings of every task how often the nearest adapter is
the task's own; on recordings made elsewhere how often it is one that was expected; and how often
the index abstains, with each corpus left out in turn (its noisy siblings too) and on sounds that
are no speech. Thresholds come from dev.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from multitask_suite import CODEC, RATE, TASKS, read

from speechadapt.adapters.retrieval_index import Index, build_index, read_index
from speechadapt.audio.degrade_codec import through_codec
from speechadapt.data.corpora import pack

if TYPE_CHECKING:
    from multitask_scores import Items, Stage

SOUNDS = "esc10"
LONGEST_S = 12.0  # of recordings made elsewhere


@dataclass(frozen=True)
class Elsewhere:
    """Recordings of other places, and the adapters that are right for them.

    Args:
        corpus: Where they are.
        language: Keep those in it.
        expected: Tasks whose adapters are right.
    """

    corpus: str
    language: str
    expected: tuple[str, ...]


ELSEWHERE = (
    Elsewhere("connected", "ar", ("ar_digits", "ar_commands", "ar_digits_noisy")),
    Elsewhere("connected", "en", ("en_digits",)),
    Elsewhere("vctk", "en", ("en_read", "orders", "orders_noisy")),
    Elsewhere("sphinx_samples", "en", ("en_read", "orders", "orders_noisy")),
)


def check(stage: Stage, items: Items, root: Path) -> dict[str, Any]:
    """Return what is noted about retrieval, as JSON values.

    Args:
        stage: Holds the adapters.
        items: Test recordings by task.
        root: The data pack's folder.
    """
    if not stage.folder_of_index.is_dir():
        stage.index()
    index = read_index(stage.folder_of_index)

    def describe(signals: Sequence[Any]) -> torch.Tensor:
        return stage.described(signals, index.layers)

    test = {task: describe([one for one, _ in rows]) for task, rows in items.items()}
    dev = {
        task: describe([one for one, _ in rows])
        for task, rows in stage.comparison.ground.dev.items()
    }
    found = nearest(index, test)
    rates = {task: found[task][task] / sum(found[task].values()) for task in test}
    other = {}
    for place in ELSEWHERE:
        own = Counter(nearest(index, {"": describe(_clips(root, place))})[""])
        right = sum(count for name, count in own.items() if name in place.expected)
        other[f"{place.corpus} ({place.language})"] = {
            "items": sum(own.values()),
            "right": right / sum(own.values()),
            "nearest": dict(own.most_common(3)),
        }
    sounds = [
        through_codec(read(root, row), RATE, CODEC)
        for row in pack.load_corpus(root, SOUNDS, "test")
    ]
    return {
        "kind": "retrieval",
        "layers": list(index.layers),
        "accuracy": rates,
        "mean_accuracy": statistics.fmean(rates.values()),
        "false_abstain": index.left_to_base(torch.cat(list(test.values()))),
        "sounds_abstain": index.left_to_base(describe(sounds)),
        "elsewhere": other,
        "left_out": left_out(stage, dev, test),
    }


def nearest(index: Index, described: Mapping[str, torch.Tensor]) -> dict[str, Counter[str]]:
    """Count which adapter is nearest, by set.

    Args:
        index: The adapters.
        described: Recordings by set.
    """
    return {name: Counter(index.nearest(rows)) for name, rows in described.items()}


def left_out(
    stage: Stage, dev: Mapping[str, torch.Tensor], test: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, float]]:
    """Return how often an index without a corpus abstains, on that corpus and on the others.

    Args:
        stage: Holds the adapters, whose cards are there.
        dev: Recordings by task, described; they choose the threshold.
        test: The same of test.
    """
    corpora = {task.name: task.corpus for task in TASKS if task.name in stage.tasks}
    found = {}
    for corpus in dict.fromkeys(corpora.values()):
        kept = [task for task in stage.tasks if corpora[task] != corpus]
        if not kept:
            continue
        folder = stage.comparison.folder / f"index-without-{corpus}"
        index = build_index(stage.encoder, [stage.folders[task] for task in kept], folder)
        index = index.calibrated(torch.cat([dev[task] for task in kept]))
        strangers = torch.cat([test[task] for task in stage.tasks if task not in kept])
        found[corpus] = {
            "abstain": index.left_to_base(strangers),
            "false_abstain": index.left_to_base(torch.cat([test[task] for task in kept])),
            "items": float(len(strangers)),
        }
    return found


def _clips(root: Path, place: Elsewhere) -> list[Any]:
    rows = [
        row
        for row in pack.load_corpus(root, place.corpus, "test")
        if row.lang == place.language and (row.duration or 0.0) <= LONGEST_S
    ]
    return [through_codec(read(root, row), RATE, CODEC) for row in rows]


def section(line: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs about retrieval.

    Args:
        line: As `check` gives it.
    """
    rates = ", ".join(f"{task} {100 * one:.0f}" for task, one in line["accuracy"].items())
    parts = [
        "## Finding adapters by sound",
        f"The nearest adapter is the task's own for {100 * line['mean_accuracy']:.1f} % of the "
        f"test recordings (mean over the tasks; bar 95 %): {rates}. Of recordings that have an "
        f"adapter {100 * line['false_abstain']:.1f} % are left to the base (bar 5 %), of sounds "
        f"that are no speech {100 * line['sounds_abstain']:.1f} % (bar 80 %). States of the "
        f"layers {', '.join(map(str, line['layers']))}.",
        "Recordings made elsewhere, and whether an expected adapter is nearest:",
    ]
    rows = [("recordings", "items", "expected %", "nearest"), ("---",) * 4]
    for name, one in line["elsewhere"].items():
        counts = ", ".join(f"{task} {count}" for task, count in one["nearest"].items())
        rows.append((name, str(one["items"]), f"{100 * one['right']:.0f}", counts))
    parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    parts.append("A corpus left out of the index with its noisy siblings, threshold from dev:")
    rows = [("left out", "items", "abstains %", "false abstains %"), ("---",) * 4]
    for name, one in line["left_out"].items():
        shares = (f"{100 * one[key]:.0f}" for key in ("abstain", "false_abstain"))
        rows.append((name, f"{one['items']:.0f}", *shares))
    return [*parts, "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]

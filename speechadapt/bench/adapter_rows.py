"""A comparison of adapter methods row by row, so that one that was stopped goes on."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.bench.adapters import (
    FULL,
    HEAD,
    Bench,
    Row,
    measure_baseline,
    measure_method,
)
from speechadapt.core.files import append_line, hash_json, read_lines
from speechadapt.metrics.speed import describe_environment

ROWS_FILE = "adapters.jsonl"
# what may change from one sitting to the next
_FREE = ("methods", "output", "data")


@dataclass(frozen=True)
class Kept:
    """Rows that are measured already.

    Args:
        path: Their file; None keeps nothing.
        asked: Hash of the options that they were measured with.
    """

    path: Path | None
    asked: str

    @classmethod
    def beside(cls, folder: Path | None, options: AdapterBench) -> Kept:
        """Return what stands in a folder, which is made.

        Args:
            folder: Of the results; None keeps nothing.
            options: What was asked for.
        """
        asked = {k: v for k, v in dataclasses.asdict(options).items() if k not in _FREE}
        if folder is None:
            return cls(None, hash_json(asked))
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder / ROWS_FILE, hash_json(asked))

    def rows(self) -> dict[str, Row]:
        """Return the rows by method, those of other options left out."""
        if self.path is None or not self.path.is_file():
            return {}
        lines = [line for _, line in read_lines(self.path)]
        return {line["method"]: line["row"] for line in lines if line["asked"] == self.asked}

    def add(self, row: Row) -> None:
        """Keep a row."""
        if self.path is not None:
            line = {"asked": self.asked, "method": row["method"], "row": row}
            append_line(self.path, line)


def report_of(bench: Bench, kept: Kept) -> dict[str, Any]:
    """Measure what is missing; return the facts of the comparison with all rows.

    Args:
        bench: What everything is measured on.
        kept: What is measured already.
    """
    options, done = bench.options, kept.rows()
    rows = []
    for name in (HEAD, FULL, *options.method_list):
        row = done.get(name)
        if row is None:
            row = (measure_baseline if name in (HEAD, FULL) else measure_method)(bench, name)
            kept.add(row)
        rows.append(row)
        print(_told(row), file=sys.stderr)
    steps = 0 if bench.recipe is None else options.steps or bench.recipe.trainer.steps
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": describe_environment(options.device, "float32", options.clips).line,
        "model": options.model if not Path(options.model).is_dir() else Path(options.model).name,
        "encoder": sum(one.numel() for one in bench.bare.model.parameters()),
        "share": options.share,
        "rounds": options.rounds,
        "recipe": options.recipe,
        "steps": steps,
        "rates": options.rate_list,
        "full_rates": options.full_rate_list,
        "seed": options.seed,
        "rows": rows,
    }


def _told(row: Row) -> str:
    if "problem" in row:
        return f"{row['method']}: {row['problem']}"
    score = f", score {100 * row['score']:.1f} %" if "score" in row else ""
    return f"{row['method']}: {row['trained']:,} trained{score}"

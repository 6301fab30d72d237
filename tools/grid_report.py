"""Test scores of a grid's chosen runs, what each arm costs, and the page of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grid_plan import Line, Run, of_kind

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import append_line, atomic_write_json, atomic_write_text, read_lines

if TYPE_CHECKING:
    from grid import Grid


def report(grid: Grid) -> None:
    """Score the finished arms that are not yet scored, and write the page.

    Args:
        grid: A comparison.

    Raises:
        ConfigError: Runs are missing of an arm that all others are compared with.
    """
    study, runs = grid.study, of_kind(grid.lines(), "run")
    done = study.plan.finished(study.plan.arms, runs)
    for name in study.needed:
        if name not in done:
            raise ConfigError(
                f"--report compares with the arm '{name}', of which "
                f"{grid.missing([name])[0].name} is missing. Run the command without --report "
                "first."
            )
    scored = of_kind(grid.lines(), "test")
    for run in study.plan.chosen(done, runs):
        if run in scored:
            continue
        if not (grid.folder / run.name / "last").is_dir():
            grid.train(run)
        found = study.score(grid.config(run), grid.folder / run.name / "last")
        append_line(grid.results, _head(grid, "test", run) | found | grid.facts)
        error = sum(found["edits"]) / sum(found["units"])
        print(f"{run.name}: test {100 * error:.1f} %", flush=True)
    known = {one["arm"] for one in grid.lines() if one["kind"] == "cost"}
    for name in done:
        run = study.plan.chosen([name], runs)[0]
        if name not in known and (cost := study.cost(grid.config(run))) is not None:
            append_line(grid.results, _head(grid, "cost", run) | cost | grid.facts)
    page = grid.results.with_suffix(".md")
    atomic_write_text(page, tables(grid))
    if figures := claimed(grid):
        measured = {name: _where(lines) for name, lines in _subjects(grid).items()}
        facts = {**grid.facts, "quick": False, "command": f"{grid.facts['command']} --report"}
        content = {**facts, "figures": figures, "details": {"measured": measured}}
        atomic_write_json(grid.results.with_suffix(".json"), content)
    print(page.read_text(encoding="utf-8"))


def _head(grid: Grid, kind: str, run: Run) -> dict[str, Any]:
    where = {"arm": run.arm, "rate": run.rate, "seed": run.seed, "protocol": grid.protocol}
    return {"kind": kind, grid.study.subject: grid.study.name, **where}


def tables(grid: Grid) -> str:
    """Return the Markdown page of a results file: each of its subjects, by its last protocol.

    Args:
        grid: A comparison whose lines are in the file.
    """
    parts = [f"# {grid.study.title}", grid.study.note]
    for name, lines in _subjects(grid).items():
        parts += grid.study.section(name, lines)
    return "\n\n".join(parts) + "\n"


def claimed(grid: Grid) -> list[dict[str, Any]]:
    """Return the figures of all subjects that the README shows.

    Args:
        grid: A comparison whose lines are in the file.
    """
    found = _subjects(grid).items()
    return [one for name, lines in found for one in grid.study.claimed(name, lines)]


def _where(lines: Sequence[Line]) -> dict[str, Any]:
    """Say when and by which command the runs of a subject were made, the last of them."""
    last = [one for one in lines if one["kind"] == "run"][-1]
    return {key: last[key] for key in ("date", "command", "processor", "threads")}


def _subjects(grid: Grid) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of every subject, by name, those of its last protocol alone."""
    lines, subject = [line for _, line in read_lines(grid.results)], grid.study.subject
    last = {one[subject]: one["protocol"] for one in lines}
    return {
        name: [one for one in lines if (one[subject], one["protocol"]) == (name, version)]
        for name, version in sorted(last.items())
    }

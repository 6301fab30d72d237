"""Test scores of a grid's chosen runs, what each arm costs, and the page of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grid_plan import Run, of_kind

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import append_line, atomic_write_text, read_lines

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
    print(page.read_text(encoding="utf-8"))


def _head(grid: Grid, kind: str, run: Run) -> dict[str, Any]:
    where = {"arm": run.arm, "rate": run.rate, "seed": run.seed, "protocol": grid.protocol}
    return {"kind": kind, grid.study.subject: grid.study.name, **where}


def tables(grid: Grid) -> str:
    """Return the Markdown page of a results file: each of its subjects, by its last protocol.

    Args:
        grid: A comparison whose lines are in the file.
    """
    study = grid.study
    lines = [line for _, line in read_lines(grid.results)]
    parts = [f"# {study.title}", study.note]
    last = {one[study.subject]: one["protocol"] for one in lines}
    for name, version in sorted(last.items()):
        own = [one for one in lines if (one[study.subject], one["protocol"]) == (name, version)]
        parts += study.section(name, own)
    return "\n\n".join(parts) + "\n"

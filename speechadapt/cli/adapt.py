"""Adapt a model to one's own recordings: `speechadapt adapt DATA --base MODEL -o ADAPTER`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from speechadapt.config.own_options import Request
    from speechadapt.config.own_run import Prepared
    from speechadapt.metrics.report import SetScore
    from speechadapt.training.adapt.scores import Comparison

HELP = "Adapt a model to your own transcribed recordings."

_BEFORE_FILE = "before.json"

_Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="A folder with x.txt beside x.wav (or .flac, .mp3 ...), or a JSON-lines manifest "
        "(audio_filepath, text; where known speaker, lang, split).",
    ),
]
_Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="ADAPTER",
        help="Folder for the adapter; ADAPTER.run beside it keeps the run's state.",
    ),
]
_BaseName = Annotated[
    str,
    typer.Option("--base", help="A bundled model, a folder or a hub id.", show_default="mini-usm"),
]
_MethodName = Annotated[
    str, typer.Option(help="Adapter method (speechadapt adapters list).", show_default="lora")
]
_BudgetWords = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Most parameters of the adapter (200k, 2%) or most time of training (20min, 2h); "
        "may be given once for each.",
        show_default="by how much data there is",
    ),
]
_OptionWords = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="KEY=VALUE",
        help="Any other setting (repeatable): adapter.rank=4, trainer.steps=500, language=de, "
        "split.test=0.2, split.speakers=folder, check.max_s=20 ...",
    ),
]


def command(
    data: _Inputs,
    output: _Output,
    base: _BaseName = "",
    method: _MethodName = "",
    budget: _BudgetWords = None,
    option: _OptionWords = None,
    seed: Annotated[int, typer.Option(help="Seed of the training; not of the split.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look over the data, print the plan, write nothing.")
    ] = False,
) -> None:
    """Adapt a model to your own transcribed recordings, ten minutes to ten hours of them.

    Looks over the data and lists what it leaves out; holds out a part, by whole speakers where they
    are known; trains an adapter until it gets no better; prints error rates before and after on the
    part held out, and says plainly if adapting did not help. The same command again goes on where
    it was stopped.
    """
    from speechadapt.config.own_options import Request, read_options
    from speechadapt.config.own_run import check_output

    words = tuple(budget or ()), tuple(option or ())
    request = Request(tuple(data), output, base, method, *words, seed)
    options = read_options(request)
    check_output(request)
    if dry_run:
        _plan(request, options)
    else:
        _adapt(request, options)


def _plan(request: Request, options: Any) -> None:
    """Print what would be done."""
    from tempfile import TemporaryDirectory

    from speechadapt.config.own_run import pace_of, prepare
    from speechadapt.config.plan import describe

    with TemporaryDirectory() as place:
        with _shown("looking over the recordings") as tick:
            prepared = prepare(request, options, Path(place), tick)
        _say(prepared.lines)
        _say(f"note: {limit}" for limit in prepared.limits)
        run = prepared.run
        print(describe(run, run.module.build(run.config)))
        trainer, pace = run.trainer, pace_of(run.config)
        evaluations = -(-trainer.steps // trainer.evaluate_every)
        minutes = pace.seconds(trainer.steps, evaluations) / 60
        print(
            f"time     up to {max(1, round(minutes))} min here ({pace.step_s:.2f} s a step), less "
            f"where {trainer.patience} scores in a row are no better"
        )
        print(f"adapter  {request.output}")


def _adapt(request: Request, options: Any) -> None:
    """Train, score, and write the adapter."""
    from speechadapt.config.own_run import is_time_up, prepare
    from speechadapt.config.run_folder import open_run_folder
    from speechadapt.training.loop import train

    with _shown("looking over the recordings") as tick:
        prepared = prepare(request, options, request.folder, tick)
    _say(prepared.lines)
    run = prepared.run
    _check_folder(run)
    before = _before(request, prepared)
    objective = run.module.build(run.config)
    for name, text in objective.summary().items():
        print(f"{name}: {text}")
    open_run_folder(run, objective.ids)
    if not is_time_up(request, options):
        result = train(objective, run.trainer, run.folder)
        if not result.finished and not is_time_up(request, options):
            print(
                f"stopped at step {result.step} of {run.trainer.steps}; the same command goes on.",
                file=sys.stderr,
            )
            raise typer.Exit(128 + result.signal if result.signal else 0)
    if is_time_up(request, options):
        print("the time given with --budget is up; the best step so far is taken.")
    _conclude(request, prepared, before, objective.summary()["train"])


def _check_folder(run: Any) -> None:
    from speechadapt.config.run_folder import check_run_folder
    from speechadapt.core.errors import FingerprintError

    try:
        check_run_folder(run)
    except FingerprintError as error:
        raise FingerprintError(str(error).replace("run.folder", "-o")) from error


def _before(request: Request, prepared: Prepared) -> SetScore | None:
    """Score the base on the held-out part, or read what it wrote when the run was begun."""
    from speechadapt.core.errors import CatalogError, CheckpointError
    from speechadapt.core.files import atomic_write_json, read_json
    from speechadapt.training.adapt.scores import load_reader, read_texts

    rows, path = prepared.parts.test, prepared.run.folder / _BEFORE_FILE
    if path.is_file():
        texts = read_json(path)
    else:
        try:
            reader = load_reader(request.base, None, prepared.run.config.language or None)
        except (CatalogError, CheckpointError) as error:
            print(f"the base writes no text: {error}")
            texts = None
        else:
            with _shown("scoring the base") as tick:
                texts = read_texts(reader, rows, tick)
        atomic_write_json(path, texts)
    if texts is None:
        return None
    scored = _score(prepared, texts)
    print(f"before: {_rates(scored)}")
    return scored


def _score(prepared: Prepared, texts: Sequence[str]) -> SetScore:
    from speechadapt.training.adapt.scores import score_texts

    config = prepared.run.config
    return score_texts(
        "held out", prepared.parts.test, texts, config.normaliser, config.language or None
    )


def _rates(scored: SetScore) -> str:
    from speechadapt.metrics.report import percent

    return f"WER {percent(scored.wer)} %, CER {percent(scored.cer)} %"


def _conclude(
    request: Request, prepared: Prepared, before: SetScore | None, trained_on: str
) -> None:
    """Score the best step, write it as the adapter, and say whether it helped."""
    from speechadapt.core.errors import JobError
    from speechadapt.training.adapt.scores import (
        compare,
        load_reader,
        read_texts,
        write_adapter,
    )

    folder = prepared.run.folder
    best = folder / "best" if (folder / "best").is_dir() else folder / "last"
    if not best.is_dir():
        raise JobError(
            f"'{folder}' was to hold the best step, but the time was up before the first score. "
            "Raise --budget and give the command again."
        )
    reader = load_reader(request.base, best)
    with _shown("scoring the adapter") as tick:
        texts = read_texts(reader, prepared.parts.test, tick)
    comparison = compare(before, _score(prepared, texts))
    training = {"data": trained_on, "held out by": prepared.parts.by}
    write_adapter(best, request.output, comparison, training, prepared.limits)
    _say_result(comparison, prepared, request)


def _say_result(comparison: Comparison, prepared: Prepared, request: Request) -> None:
    from speechadapt.training.adapt.scores import comparison_table, scored_on

    table = comparison_table(comparison)
    widths = [max(len(row[place]) for row in table) for place in range(3)]
    print()
    for row in table:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print(f"on {scored_on(comparison)}")
    _say(f"note: {limit}" for limit in prepared.limits)
    print(comparison.sentence())
    print(f"adapter: {request.output} (state of the run: {request.folder})")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


@contextmanager
def _shown(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def tick(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tick

"""`speechadapt bench`: measurements that can be repeated on one's own machine."""

from __future__ import annotations

from pathlib import Path

import typer

from speechadapt.bench.adapter_options import AdapterBench
from speechadapt.bench.options import DecoderBench
from speechadapt.bench.restore_options import RestoreBench
from speechadapt.cli.flags import command_for

HELP = "Measure accuracy and speed: adapter methods, decoders against one another, restorers."

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def bench() -> None:
    """Measure accuracy and speed."""


def run(options: DecoderBench) -> int:
    """Compare decoders and print the tables.

    Args:
        options: What the user asked for.

    Returns:
        The exit code.
    """
    from speechadapt.bench.decoders import compare_decoders
    from speechadapt.bench.report import draw, markdown
    from speechadapt.core.files import atomic_write_json, atomic_write_text

    report = compare_decoders(options)
    text = markdown(report)
    print(text, end="")
    if options.output:
        folder = Path(options.output).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_json(folder / "decoders.json", report)
        atomic_write_text(folder / "decoders.md", text)
        if "length" in report:
            draw(report, folder / "decoders.png")
    return 0


def restore(options: RestoreBench) -> int:
    """Measure a restorer and print the table.

    Args:
        options: What the user asked for.

    Returns:
        The exit code.
    """
    from speechadapt.bench.restore import lines, measure_restorer
    from speechadapt.core.files import atomic_write_json

    report = measure_restorer(options)
    print(lines(report))
    if options.output:
        atomic_write_json(Path(options.output).expanduser(), report)
    return 0


def adapters(options: AdapterBench) -> int:
    """Compare adapter methods, one after another, and print the table.

    Args:
        options: What the user asked for.

    Returns:
        The exit code.
    """
    from speechadapt.bench.adapter_report import draw, figure_class, markdown
    from speechadapt.bench.adapter_rows import Kept, report_of
    from speechadapt.bench.adapters import prepare
    from speechadapt.config.resolve import resolve
    from speechadapt.core.files import atomic_write_json, atomic_write_text

    words = [f"recipe={options.recipe}", *([f"data.root={options.data}"] if options.data else [])]
    recipe = resolve(words).config if options.recipe else None
    folder = Path(options.output).expanduser() if options.output else None
    if folder is not None:
        figure_class()
    bench = prepare(options, recipe)
    report = report_of(bench, Kept.beside(folder, options))
    text = markdown(report)
    print(text, end="")
    if folder is not None:
        atomic_write_json(folder / "adapters.json", report)
        atomic_write_text(folder / "adapters.md", text)
        draw(report, folder / "adapters.png")
    return 0


app.command("adapters")(
    command_for(
        AdapterBench,
        adapters,
        "Compare adapter methods on one encoder at one budget: trained parameters, time of a "
        "training step and of a forward pass and, with --recipe, the score on its dev recordings. "
        "Goes on where it stopped if the same command is given with the same --output.",
    )
)

app.command("decoders")(
    command_for(
        DecoderBench,
        run,
        "Compare the decoders of one encoder: autoregressive (greedy, with a growing cache and "
        "with one of fixed size, whose step is compiled on CUDA; by beams), CTC, masked "
        "diffusion with every selection. Time of the encoder is included and shown apart; real "
        "tokens only. With --random the weights are random, and speed alone is measured: cost by "
        "length and by candidates, and keys and values of the audio reused against recomputed.",
    )
)

app.command("restore")(
    command_for(
        RestoreBench,
        restore,
        "Measure a restorer's speed and memory, end to end and by its halves: a folder's, or one "
        "of random weights at full size (w2v-BERT 2.0 cut at layer 8, WaveFit as in the paper).",
    )
)

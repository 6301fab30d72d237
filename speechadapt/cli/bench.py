"""`speechadapt bench`: measurements that can be repeated on one's own machine."""

from __future__ import annotations

from pathlib import Path

import typer

from speechadapt.bench.options import DecoderBench
from speechadapt.bench.restore_options import RestoreBench
from speechadapt.cli.flags import command_for

HELP = "Measure accuracy and speed: decoders against one another, restorers."

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


app.command("decoders")(
    command_for(
        DecoderBench,
        run,
        "Compare the decoders of one encoder: autoregressive (greedy and by beams), CTC, masked "
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

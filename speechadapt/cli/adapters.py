"""`speechadapt adapters`: the methods there are, and what can be done with a saved adapter.

Listing reads source text and loads nothing heavy. Whatever needs a base takes it by `--base`: the
name of a bundled model, a model folder or a hub id.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechadapt.cli import compose, hub
from speechadapt.core.errors import ConfigError

if TYPE_CHECKING:
    from speechadapt.adapters.handle import Handle
    from speechadapt.adapters.store import Stored
    from speechadapt.core.shapes import Clip
    from speechadapt.encoders.base import Encoder

HELP = "List adapter methods; show, verify, convert, merge, fuse, index, push and pull adapters."

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)
app.command("fuse")(compose.fuse)
app.command("index")(compose.index)
app.command("search")(compose.search)
app.command("push")(hub.push_adapter)
app.command("pull")(hub.pull_adapter)


class Source(StrEnum):
    """Tools whose adapters can be imported."""

    PEFT = "peft"
    ADAPTERHUB = "adapterhub"
    MMS = "mms"


class Target(StrEnum):
    """What an adapter can be exported to."""

    PEFT = "peft"
    ADAPTERHUB = "adapterhub"
    CTRANSLATE2 = "ctranslate2"


class Precision(StrEnum):
    """Number formats of a written model."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The adapter's folder.")]
Base = Annotated[
    str, typer.Option("--base", help="The model it belongs to: a bundled name, a folder, a hub id.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Where to write; must not exist or be empty.")
]
Revision = Annotated[str | None, typer.Option(help="Hub branch, tag or commit of the base.")]
Offline = Annotated[bool, typer.Option(help="Never reach for the network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_methods(as_json: AsJson = False) -> None:
    """List the adapter methods, those of installed packages included."""
    from speechadapt.adapters.catalog import method_names, title

    titles = {name: title(name) for name in method_names()}
    if as_json:
        print(json.dumps([{"name": name, "title": text} for name, text in titles.items()]))
    else:
        _print_rows(titles.items())


@app.command("show")
def show(folder: Folder, as_json: AsJson = False) -> None:
    """Print what a saved adapter is, what it belongs to, and what it was trained on."""
    from speechadapt.adapters.store import read

    stored = read(folder)
    if as_json:
        print(json.dumps(dict(stored.details), ensure_ascii=False, indent=2))
    else:
        _print_rows(_facts(stored))


@app.command("verify")
def verify(
    folder: Folder,
    base: Base,
    audio: Annotated[
        list[Path] | None,
        typer.Option(help="A recording to try it on (may be given again); noise where none is."),
    ] = None,
    padding: Annotated[
        str, typer.Option(help="full or native, for models with a window.")
    ] = "full",
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Check that an adapter acts when on and is gone when off; exit code 3 where it does not."""
    from dataclasses import asdict

    from speechadapt.adapters.verify import verify as check

    encoder = _load_base(base, revision, offline, padding)
    handle = _attach(encoder, folder)
    report = check(encoder, handle.name, _read_clips(audio, encoder) if audio else None)
    print(json.dumps(asdict(report) | {"sound": report.sound}) if as_json else report)
    raise typer.Exit(0 if report.sound else 3)


@app.command("merge")
def merge(
    folder: Folder,
    base: Base,
    output: Output,
    dtype: Annotated[Precision, typer.Option(help="Precision to write.")] = Precision.FLOAT32,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Write the base with an adapter folded in, as a model folder that transformers loads."""
    import torch

    from speechadapt.adapters import store
    from speechadapt.adapters.merge import merge_to_folder

    _check_empty(output)
    encoder = _load_base(base, revision, offline)
    handle = _attach(encoder, folder)
    merge_to_folder(encoder, handle.name, output, dtype=getattr(torch, dtype.value))
    print(f"{output} is {base} with '{handle.name}' folded in")
    if store.read(folder).head:
        print("the head saved beside the adapter is not part of it; it stays with the adapter")


@app.command("import")
def import_foreign(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder another tool wrote; of MMS a file.")
    ],
    base: Base,
    output: Output,
    form: Annotated[
        Source | None, typer.Option("--from", help="That tool; found out where not given.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a pickle, running none of its code.")
    ] = False,
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Leave out what adapts a decoder.")
    ] = False,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Turn an adapter of PEFT, AdapterHub or MMS into one of this package."""
    from speechadapt.adapters.interop import formats
    from speechadapt.adapters.store import read

    _check_empty(output)
    kind = formats.detect(source) if form is None else form.value
    encoder = _load_base(base, revision, offline)
    foreign = formats.read(
        source, encoder, kind, allow_pickle=allow_pickle, encoder_only=encoder_only
    )
    formats.convert(encoder, foreign, output, _name_of(output))
    stored = read(output)
    print(
        f"{output} holds the {kind} adapter as '{stored.method}': "
        f"{stored.num_parameters:,} parameters at {len(stored.sites)} sites"
    )
    if stored.head:
        print(f"a head came along: {len(stored.head)} tensors")
    if foreign.left_out:
        print(f"left out, being outside the encoder: {len(foreign.left_out)} modules")


@app.command("export")
def export(
    folder: Folder,
    base: Base,
    output: Output,
    target: Annotated[Target, typer.Option("--to", help="The tool that is to read it.")],
    quantisation: Annotated[
        str | None, typer.Option(help="For ctranslate2: int8, int16, float16 ...")
    ] = None,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Write an adapter for another tool; for ctranslate2 a whole Whisper with it folded in.

    What was converted for ctranslate2 decodes two clips; exit code 3 where it says other tokens.
    """
    from speechadapt.adapters.interop import formats
    from speechadapt.adapters.store import read

    _check_empty(output)
    encoder = _load_base(base, revision, offline)
    handle = _attach(encoder, folder)
    if target is Target.CTRANSLATE2:
        raise typer.Exit(_export_ctranslate2(handle, output, quantisation))
    stored = read(folder)
    # only such a head has the names that peft looks for
    fits = target is Target.PEFT and (stored.details.get("head") or {}).get("format") == "peft"
    formats.write(handle, output, target.value, head=stored.head if fits else None)
    print(f"{output} holds '{handle.name}' for {target.value}")
    if stored.head and not fits:
        print("its head was left out", file=sys.stderr)


def _export_ctranslate2(handle: Handle, output: Path, quantisation: str | None) -> int:
    from tempfile import TemporaryDirectory

    from speechadapt.adapters.interop.ctranslate2 import export as convert
    from speechadapt.adapters.interop.ctranslate2_check import count_equal
    from speechadapt.adapters.merge import merge_to_folder

    demo = sorted((Path(__file__).parents[1] / "demo" / "clips").glob("*.flac"))[:2]
    with TemporaryDirectory() as temporary:
        merged = merge_to_folder(handle.encoder, handle.name, Path(temporary) / "merged")
        convert(merged, output, quantisation)
        clips = _read_clips(demo, handle.encoder)
        same = count_equal(merged, output, clips)
    print(
        f"{output} is the merged model for ctranslate2; same tokens on {same} of {len(clips)} clips"
    )
    return 0 if same == len(clips) else 3


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Lower-case words joined by '_'.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the file to be.")
    ] = Path("."),
) -> None:
    """Write the skeleton of a new method, which works as it is; NAME is its name."""
    from speechadapt.adapters.skeleton import entry_point, method_source, write_new

    path = output / f"{name}.py"
    write_new({path: method_source(name)})
    module = f"{output.resolve().name}.{name}"
    print(f"wrote {path}\nTo offer it, say in the pyproject.toml of your package:\n")
    print(entry_point(name, module))


def _load_base(base: str, revision: str | None, offline: bool, padding: str = "full") -> Encoder:
    from transformers.utils import logging

    from speechadapt.encoders.catalog import load_encoder
    from speechadapt.models.build import find_model

    # a hub id stays one, so that a saved adapter names it instead of a folder of the cache
    on_hub = "/" in base and not Path(base).expanduser().is_dir()
    name = base if on_hub else find_model(base, revision=revision, offline=offline)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # a decoder's weights beside the encoder's are no news
    try:
        kept = revision if on_hub else None
        return load_encoder(name, revision=kept, offline=offline, padding=padding)
    finally:
        logging.set_verbosity(before)


def _attach(encoder: Encoder, folder: Path) -> Handle:
    from speechadapt.adapters.store import load

    return load(encoder, folder, name=_name_of(folder))


def _name_of(folder: Path) -> str:
    """Return a folder's name as an attachment may be called."""
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name, flags=re.ASCII).strip("-._")
    return name or "adapter"


def _check_empty(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"'{output}' was to be written, but is there already and not empty.")


def _read_clips(paths: Iterable[Path], encoder: Encoder) -> list[Clip]:
    import torch

    from speechadapt.audio.io import decode_audio

    most = None if encoder.window_s is None else int(encoder.window_s * encoder.sample_rate)
    signals = (decode_audio(path, encoder.sample_rate).waveform for path in paths)
    return [torch.from_numpy(signal[:most]) for signal in signals]


def _facts(stored: Stored) -> Iterable[tuple[str, str]]:
    details = stored.details
    yield "method", f"{stored.method}, version {details['method_version']}"
    yield "settings", ", ".join(f"{key}={json.dumps(one)}" for key, one in stored.config.items())
    yield "roles", ", ".join(stored.roles)
    yield "sites", str(len(stored.sites))
    yield "trained norms", f"{stored.train_norms} ({len(stored.norm_sites)} norms)"
    yield "parameters", f"{details.get('parameters', stored.num_parameters):,}"
    base = stored.base
    model = base.get("name") or "a model built in memory"
    yield "base", f"{model} ({base.get('family')}), revision {base.get('revision') or 'unknown'}"
    yield "weights", str(base.get("fingerprint"))
    if stored.head:
        yield "head", f"{sum(one.numel() for one in stored.head.values()):,} parameters"
    for title in ("training", "scores", "versions"):
        for key, value in dict(details.get(title) or {}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{title}: {key}", text


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    listed = list(rows)
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in listed), default=0)
        for name, text in listed:
            print(f"{name:<{width}}  {text}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in listed:
        table.add_row(name, text)
    Console(highlight=False, markup=False).print(table)

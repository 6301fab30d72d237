"""What `speechadapt adapters` does with several adapters: fuse, index and search them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechadapt.core.errors import ConfigError

if TYPE_CHECKING:
    from speechadapt.core.shapes import Clip
    from speechadapt.encoders.base import Encoder

Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of adapters.")]
Base = Annotated[
    str,
    typer.Option("--base", help="The model they belong to: a bundled name, a folder, a hub id."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Manifest of recordings; rows name their 'task'.")
]
Offline = Annotated[bool, typer.Option(help="Never reach for the network.")]


class Way(StrEnum):
    """Ways to put adapters together that train nothing."""

    MEAN = "mean"
    AVERAGE = "average"
    MERA = "mera"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"


def fuse(
    folders: Folders,
    base: Base,
    output: Output,
    method: Annotated[Way, typer.Option(help="How they are put together.")] = Way.MEAN,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of it, name=value (repeatable).")
    ] = None,
    data: Data = None,
    bundle: Annotated[bool, typer.Option(help="Write the adapters along.")] = False,
    offline: Offline = False,
) -> None:
    """Put adapters together: into a composition that refers to them, or merged into one.

    mean and average leave the adapters as they are; mera (bottlenecks), svd, ties and dare
    (low-rank) write one new adapter. --data gives the recordings by which `mera --set method=acts`
    aligns units.
    """
    from speechadapt.adapters import store
    from speechadapt.adapters.composed import compose
    from speechadapt.adapters.composite_store import save_composite
    from speechadapt.adapters.composition import parse
    from speechadapt.adapters.handle import attachment
    from speechadapt.cli.adapters import _check_empty, _load_base

    _check_empty(output)
    encoder = _load_base(base, None, offline)
    names = _attached(encoder, folders)
    settings = [*(setting or []), *(["method=mean"] if method is Way.MEAN else [])]
    kind = "fuse" if method is Way.MEAN else method.value
    value = parse(f"{kind}({', '.join([*names, *settings])})")
    clips = [] if data is None else [clip for _, clip, _ in _read_tasks(data, encoder)]
    (made,) = compose(encoder, value, name="fused", clips=clips)
    handle = attachment(encoder, made)
    if handle.composition is None:
        handle.name = output.resolve().name
        store.save(handle, output, training={"merged from": ", ".join(names), "by": str(value)})
        print(f"{output} holds {value} as one adapter: {handle.num_parameters():,} parameters")
        return
    save_composite(encoder, value, output, bundle=bundle)
    print(f"{output} holds {value}, {'with' if bundle else 'which refers to'} its adapters")


def index(
    folders: Folders,
    base: Base,
    output: Output,
    data: Data = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="Layer that listens (repeatable); the first and a third of the way up."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Strangeness beyond which no adapter is near.")
    ] = 2.0,
    offline: Offline = False,
) -> None:
    """Write the index from which `--adapter "auto(INDEX)"` chooses adapters for each utterance.

    --data gives every adapter's training recordings, as rows whose `task` is the adapter's name;
    what they sound like is kept in a card in its folder. Where rows have a `text`, recordings that
    say the same are kept apart, which tells tasks of few words from one another. Without --data
    the cards must be there.
    """
    from speechadapt.adapters.retrieval import describe_clips, layers_of, make_card, save_card
    from speechadapt.adapters.retrieval_index import build_index
    from speechadapt.cli.adapters import _load_base

    encoder = _load_base(base, None, offline)
    if data is not None:
        import torch

        layers = layers_of(encoder, layer or ())
        heard: dict[str, list[torch.Tensor]] = {}
        said: dict[str, list[str]] = {}
        for task, clip, text in _read_tasks(data, encoder):
            heard.setdefault(task, []).append(describe_clips(encoder, [clip], layers))
            said.setdefault(task, []).append(text)
        for folder, name in zip(folders, _names(folders), strict=True):
            if name not in heard:
                raise ConfigError(
                    f"'{data}' has no row whose task is '{name}', the name of '{folder}'. It has "
                    f"{', '.join(sorted(heard))}."
                )
            described, words = torch.cat(heard[name]), _text(folder, name)
            card = make_card(encoder, name, described, layers, words, said[name])
            save_card(card, folder)
    made = build_index(encoder, folders, output, threshold)
    print(f"{output} indexes {len(made.entries)} adapters: {', '.join(made.names)}")


def search(
    words: Annotated[list[str], typer.Argument(help="What is searched for.")],
    within: Annotated[Path, typer.Option("--index", help="The index's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find adapters by words of their cards, best first."""
    from speechadapt.adapters.retrieval_index import read_index

    read = read_index(within)
    texts = {one.name: one.text for one in read.entries}
    found = read.search(" ".join(words))
    if as_json:
        rows = [{"name": name, "score": score, "text": texts[name]} for name, score in found]
        print(json.dumps(rows, ensure_ascii=False))
        return
    for name, score in found:
        print(f"{score:6.2f}  {name}  {texts[name]}")
    if not found:
        print(f"no adapter of {within} speaks of that; there are {', '.join(texts)}")


def _names(folders: list[Path]) -> list[str]:
    from speechadapt.models.composed import called

    names = [called(folder) for folder in folders]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(f"two of the folders hold an adapter called '{twice}'. Rename one.")
    return names


def _attached(encoder: Encoder, folders: list[Path]) -> list[str]:
    from speechadapt.adapters.store import load

    names = _names(folders)
    for folder, name in zip(folders, names, strict=True):
        load(encoder, folder, name=name, activate=False)
    return names


def _read_tasks(data: Path, encoder: Encoder) -> list[tuple[str, Clip, str]]:
    import torch

    from speechadapt.data.own import read_own
    from speechadapt.data.suite import read_suite

    rate, suite = encoder.sample_rate, read_suite(data)
    most = None if encoder.window_s is None else int(encoder.window_s * rate)
    return [
        (task, torch.from_numpy(read_own(row, rate)[0][:most]), row.text or "")
        for task in suite
        for row in suite.of(task)
    ]


def _text(folder: Path, name: str) -> str:
    from speechadapt.adapters.store import read

    details = read(folder).details
    said = dict(details.get("training") or {}).get("data", "")
    language = dict(details.get("head") or {}).get("language") or ""
    return " ".join(part for part in (name.replace("-", " "), str(said), language) if part)

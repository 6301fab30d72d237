"""What `speechadapt adapters` does with several adapters: fuse, index and search them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechadapt.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from speechadapt.adapters.retrieval_index import Index
    from speechadapt.core.shapes import Clip
    from speechadapt.data.manifest import Utterance
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


TRAIN, DEV = "train", "dev"


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
    from speechadapt.data.suite import read_suite

    _check_empty(output)
    encoder = _load_base(base, None, offline)
    names = _attached(encoder, folders)
    settings = [*(setting or []), *(["method=mean"] if method is Way.MEAN else [])]
    kind = "fuse" if method is Way.MEAN else method.value
    value = parse(f"{kind}({', '.join([*names, *settings])})")
    suite = {} if data is None else read_suite(data).tasks
    clips = [clip for rows in suite.values() for _, clip in _clips(rows, encoder)]
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
        float | None,
        typer.Option(help="Strangeness beyond which no adapter is near (default: by dev rows)."),
    ] = None,
    rejected: Annotated[
        float, typer.Option(help="Share of the dev rows that may be left to the base.")
    ] = 0.05,
    offline: Offline = False,
) -> None:
    """Write the index from which `--adapter "auto(INDEX)"` chooses adapters for each utterance.

    --data gives every adapter's training recordings, as rows whose `task` is the adapter's name;
    what they sound like is kept in a card in its folder. Where rows have a `text`, recordings that
    say the same are kept apart, which tells tasks of few words from one another. Without --data
    the cards must be there.

    Rows whose `split` is dev make no card: the index is tried on them, and they set the threshold;
    2 without any. Rows of another split than train and dev are left alone.
    """
    from speechadapt.adapters.retrieval import layers_of
    from speechadapt.adapters.retrieval_index import THRESHOLD, build_index, save_index
    from speechadapt.cli.adapters import _load_base

    if not 0 <= rejected < 1:
        raise ConfigError(f"--rejected must be at least 0 and below 1, got {rejected:g}.")
    encoder = _load_base(base, None, offline)
    tried: dict[str, Tensor] = {}
    if data is not None:
        layers = layers_of(encoder, layer or ())
        heard = _described(data, encoder, layers)
        _write_cards(encoder, folders, layers, heard, data)
        tried = {task: rows for (task, split), (rows, _) in heard.items() if split == DEV}
    made = build_index(encoder, folders, output, THRESHOLD if threshold is None else threshold)
    known = [rows for task, rows in tried.items() if task in made.names]
    if known and threshold is None:
        import torch

        made = made.calibrated(torch.cat(known), rejected)
        save_index(made, output)
    print(f"{output} indexes {len(made.entries)} adapters: {', '.join(made.names)}")
    for line in _trial(made, tried):
        print(line)


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


def _described(
    data: Path, encoder: Encoder, layers: Sequence[int]
) -> dict[tuple[str, str], tuple[Tensor, list[str]]]:
    """Return what recordings sound like and what is said in them, by task and split."""
    from speechadapt.adapters.retrieval import describe_all
    from speechadapt.data.suite import read_suite

    suite = read_suite(data)
    found = {}
    for task in suite:
        for split in (TRAIN, DEV):
            rows = [row for row in suite.of(task) if row.extra.get("split", TRAIN) == split]
            read = _clips(rows, encoder)
            if read:
                described = describe_all(encoder, [clip for _, clip in read], layers)
                found[task, split] = described, [row.text or "" for row, _ in read]
    return found


def _write_cards(
    encoder: Encoder,
    folders: list[Path],
    layers: Sequence[int],
    heard: Mapping[tuple[str, str], tuple[Tensor, list[str]]],
    data: Path,
) -> None:
    from speechadapt.adapters.retrieval import make_card, save_card

    for folder, name in zip(folders, _names(folders), strict=True):
        if (name, TRAIN) not in heard:
            there = sorted(task for task, split in heard if split == TRAIN)
            raise ConfigError(
                f"'{data}' has no row to train by whose task is '{name}', the name of '{folder}'. "
                f"It has {', '.join(there) or 'none at all'}."
            )
        described, said = heard[name, TRAIN]
        card = make_card(encoder, name, described, layers, _text(folder, name), said)
        save_card(card, folder)


def _trial(index: Index, tried: Mapping[str, Tensor]) -> list[str]:
    """Return lines on how recordings that no card was made from find their adapter."""
    rows = []
    for task, described in tried.items():
        near = Counter(index.nearest(described))
        other = [f"{name} {count}" for name, count in near.most_common(3) if name != task]
        own = near[task] / len(described) if task in index.names else None
        left = f"{100 * index.left_to_base(described):.1f}"
        right = "-" if own is None else f"{100 * own:.1f}"
        rows.append((task, str(len(described)), right, left, ", ".join(other) or "-"))
    if not rows:
        return []
    head = ("held out", "rows", "own nearest, %", "left to the base, %", "other nearest")
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip()
        for one in (head, *rows)
    ]
    return [*lines, f"threshold: {index.threshold:.3g}"]


def _clips(rows: Sequence[Utterance], encoder: Encoder) -> list[tuple[Utterance, Clip]]:
    """Return recordings as the encoder hears them; of those that cannot be read it is told why."""
    import torch

    from speechadapt.core.errors import AudioError
    from speechadapt.data.own import read_own

    rate = encoder.sample_rate
    most = None if encoder.window_s is None else int(encoder.window_s * rate)
    found = []
    for row in rows:
        try:
            found.append((row, torch.from_numpy(read_own(row, rate)[0][:most])))
        except AudioError as error:
            typer.echo(f"left out: {error}", err=True)
    return found


def _text(folder: Path, name: str) -> str:
    from speechadapt.adapters.store import read

    details = read(folder).details
    said = dict(details.get("training") or {}).get("data", "")
    language = dict(details.get("head") or {}).get("language") or ""
    return " ".join(part for part in (name.replace("-", " "), str(said), language) if part)

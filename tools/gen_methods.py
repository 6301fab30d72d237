"""Write docs/methods.md, the table of adapter methods, from the methods' own files.

    python tools/gen_methods.py            write the page
    python tools/gen_methods.py --check    write nothing; fail where the page is stale

Words come from the docstrings, settings from the dataclasses. Parameters are the closed form of
each method at its default roles and settings, on models of three sizes that are built without
weights; the form is held against the tensors of the adapter so attached.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from speechadapt.adapters.attach import build
from speechadapt.adapters.catalog import method, method_names
from speechadapt.core.errors import ConfigError, SiteError, SpeechadaptError
from speechadapt.core.files import atomic_write_text
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.encoders.whisper import WhisperEncoder
from speechadapt.models.card import find_bundled, table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
NOTE = "<!-- Written by tools/gen_methods.py: run `make docs`, do not edit. -->\n"
SECTIONS = ("Source", "Reference", "Differs")
BUNDLED = "mini-usm"


@dataclass(frozen=True)
class Words:
    """What a method's docstring says.

    Args:
        title: Its first line.
        body: What stands between the title and the sections, formula included.
        sections: The text of each section, on one line, by its name.
    """

    title: str
    body: str
    sections: Mapping[str, str]


def main(words: Iterable[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    try:
        wanted = NOTE + page()
    except SpeechadaptError as error:
        print(f"gen_methods: {error}", file=sys.stderr)
        return 1
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in given:
        print(f"{PAGE.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
        return 1
    atomic_write_text(PAGE, wanted)
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def page() -> str:
    """Return the page's text."""
    names = [name for name in method_names() if is_own(name)]
    with torch.device("meta"):  # sizes without numbers: no memory, no random draws
        encoders = {"mini-usm": mini_usm(), "Whisper-small": whisper_small(), "w2v-BERT 2.0": usm()}
        for encoder in encoders.values():
            encoder.to("meta")  # transformers makes a tensor or two elsewhere
        rows = [overview_row(name, encoders) for name in names]
    header = ("method", "what it is", "default roles", "merges", "starts as identity", *encoders)
    sizes = ", ".join(f"{name} {millions(size(one))}" for name, one in encoders.items())
    parts = [
        "# Adapter methods",
        "One file of `speechadapt/adapters/methods` each. `speechadapt adapters list` names them, "
        "`adapter.roles` and every setting can be given in a recipe; `train_norms` may be added to "
        "any of them.",
        table(header, rows),
        "Last columns: trainable parameters with default roles and settings, and their share of "
        f"the encoder ({sizes}). A role that ends in `?` is passed over where an encoder has no "
        "such place; `-` means that the method has no place there.",
        *(part for name in names for part in method_parts(name)),
    ]
    return "\n\n".join(parts) + "\n"


def is_own(name: str) -> bool:
    """Say whether a method is this package's, not one that is installed beside it."""
    return (ROOT / "speechadapt" / "adapters" / "methods" / f"{name}.py").is_file()


def overview_row(name: str, encoders: Mapping[str, Encoder]) -> tuple[str, ...]:
    found = method(name)
    anchor = f"[`{name}`](#{name})"
    roles = ", ".join(f"`{role}`" for role in found.roles)
    facts = ["yes" if fact else "no" for fact in (found.merges, found.starts_as_identity)]
    counts = [parameters_cell(encoder, name) for encoder in encoders.values()]
    return (anchor, in_cell(words_of(name).title), roles, *facts, *counts)


def parameters_cell(encoder: Encoder, name: str) -> str:
    """Return a method's parameters on an encoder, and their share of it.

    Raises:
        ConfigError: The closed form does not say what the adapter's tensors add up to.
    """
    try:
        handle = build(encoder, name)
    except SiteError:
        return "-"
    count, expected = handle.num_parameters(), handle.expected_parameters()
    if count != expected:
        raise ConfigError(
            f"the closed form of '{name}' says {expected} parameters on {encoder.family}, but its "
            f"tensors hold {count}. Mend METHOD.parameters of that file."
        )
    return f"{millions(count)} ({100 * count / size(encoder):.2g} %)"


def method_parts(name: str) -> Iterator[str]:
    """Yield the paragraphs about one method."""
    found, words = method(name), words_of(name)
    yield f"## {name}"
    yield words.title
    if words.body:
        yield words.body
    if found.needs:
        yield f"Conditions it reads: {', '.join(f'`{one}`' for one in sorted(found.needs))}."
    if rows := list(setting_rows(found.config)):
        yield table(("setting", "default", "what"), rows)
    yield "\n".join(f"- {title}: {text}" for title, text in words.sections.items())


def setting_rows(config: type) -> Iterator[tuple[str, ...]]:
    """Yield name, default and description of every field of a config dataclass."""
    said = arguments_of(config)
    for key, value in asdict(config()).items():
        yield f"`{key}`", f"`{json.dumps(value)}`", in_cell(said.get(key, ""))


def arguments_of(documented: type) -> dict[str, str]:
    """Return what a class's docstring says about each argument, on one line each."""
    text = inspect.getdoc(documented) or ""
    _, _, arguments = text.partition("Args:\n")
    found: dict[str, str] = {}
    key = ""
    for line in arguments.split("\n"):
        if line and not line.startswith(" "):
            break
        start = re.match(r" {4}(\w+): (.*)", line)
        key, said = start.groups() if start else (key, line.strip())
        found[key] = f"{found.get(key, '')} {said}".strip()
    return found


def words_of(name: str) -> Words:
    """Read a method's docstring.

    Raises:
        ConfigError: It lacks a title or a source.
    """
    module = sys.modules[method(name).config.__module__]
    title, _, rest = inspect.getdoc(module).partition("\n")
    body: list[str] = []
    sections: dict[str, str] = {}
    section = ""
    for line in rest.split("\n"):
        start = re.match(rf"({'|'.join(SECTIONS)}): *(.*)", line)
        if start:
            section = start[1]
            sections[section] = start[2]
        elif section:
            # an address may be broken at a slash
            gap = "" if sections[section].endswith("/") else " "
            sections[section] = f"{sections[section]}{gap}{line.strip()}".rstrip()
        else:
            body.append(line)
    if not title or "Source" not in sections:
        raise ConfigError(
            f"adapters/methods/{name}.py is to say what it is in one line and name its 'Source:', "
            f"but says {[title, *sections]}. See adapters/methods/lora.py."
        )
    return Words(title, "\n".join(body).strip("\n"), sections)


def mini_usm() -> Encoder:
    config = Wav2Vec2BertConfig.from_pretrained(find_bundled(BUNDLED))
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(find_bundled(BUNDLED))
    return W2vBertEncoder(Wav2Vec2BertModel(config), extractor)


def usm() -> Encoder:
    return W2vBertEncoder(Wav2Vec2BertModel(Wav2Vec2BertConfig()), SeamlessM4TFeatureExtractor())


def whisper_small() -> Encoder:
    shape: dict[str, Any] = {
        "d_model": 768,
        "encoder_layers": 12,
        "encoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "decoder_layers": 1,
    }
    return WhisperEncoder(WhisperModel(WhisperConfig(**shape)), WhisperFeatureExtractor())


def size(encoder: Encoder) -> int:
    return sum(one.numel() for one in encoder.model.parameters())


def millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def in_cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())

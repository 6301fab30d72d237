"""Write the documentation that is read off the code, the recipes and the model cards.

    python tools/gen_docs.py            write every page
    python tools/gen_docs.py --check    write nothing; fail and name the pages that are stale

Pages: docs/cli.md (every verb and flag), docs/recipes.md (every recipe's header), docs/models.md
(every bundled model), docs/tools.md (every program of this folder) and the README.md of every
bundled model.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main

from speechadapt.cli.main import build_app, find_verbs
from speechadapt.core.files import atomic_write_text
from speechadapt.models.card import bundled_models, format_score, read_card, render_card, table

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Written by tools/gen_docs.py: run `make docs`, do not edit. -->\n"
HEADER_KEYS = ("Command", "Time", "Expected")


def main() -> int:
    pages = {path: NOTE + text for path, text in all_pages()}
    stale = [path for path, text in pages.items() if not _holds(path, text)]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            atomic_write_text(path, pages[path])
            print(f"wrote {path.relative_to(ROOT)}")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


def all_pages() -> Iterator[tuple[Path, str]]:
    yield ROOT / "docs" / "cli.md", cli_page()
    yield ROOT / "docs" / "recipes.md", recipes_page(ROOT / "recipes")
    yield ROOT / "docs" / "models.md", models_page()
    yield ROOT / "docs" / "tools.md", tools_page(ROOT / "tools")
    for folder in bundled_models().values():
        yield folder / "README.md", render_card(read_card(folder))


def cli_page() -> str:
    parts = [
        "# Command line",
        "`speechadapt --help` lists the verbs; exit codes are in the README.",
    ]
    for verb in find_verbs().values():
        group = typer.main.get_command(build_app(verb.name))
        command = getattr(group, "commands")[verb.name]  # noqa: B009 - not in typer's types
        body = _command_parts(command, verb.name)
        parts += [f"## speechadapt {verb.name}", verb.help, *(b for b in body if b != verb.help)]
    return "\n\n".join(parts) + "\n"


def recipes_page(folder: Path) -> str:
    header = ("recipe", "what", "command", "time", "expected")
    rows = [recipe_row(path, folder) for path in sorted(folder.glob("*/*.yaml"))]
    text = table(header, rows) if rows else "No recipe yet."
    return f"# Recipes\n\nOne file is one experiment; it states only its differences.\n\n{text}\n"


def models_page() -> str:
    header = ("model", "what", "parameters", "recipes", "test set", "score (95 % interval)")
    rows: list[tuple[object, ...]] = []
    for name, folder in bundled_models().items():
        card = read_card(folder)
        size = f"{card.parameters / 1e6:.1f} M"
        first = (f"`{name}`", card.summary, size, ", ".join(f"`{item}`" for item in card.recipes))
        scores = [(s.test_set, f"{s.metric.upper()} {format_score(s)}") for s in card.scores]
        for number, score in enumerate(scores or [("", "")]):
            rows.append((*(first if number == 0 else ("",) * 4), *score))
    text = table(header, rows) if rows else "No model is bundled yet."
    return (
        f"# Bundled models\n\nSmall and narrow on purpose; each card says how narrow.\n\n{text}\n"
    )


def tools_page(folder: Path) -> str:
    """Return the page of the programs of a folder, the modules they are made of apart."""
    programs: list[tuple[str, str]] = []
    parts: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        runs = 'if __name__ == "__main__":' in source
        (programs if runs else parts).append((f"`tools/{path.name}`", summary))
    header = ("file", "what")
    return (
        "# Tools\n\nPrograms that a checkout has and an installed package has not: measurements, "
        "comparisons, packaging, generated pages. `--help` and the top of each say how to call it."
        f"\n\n{table(header, programs)}\n\nParts of them:\n\n{table(header, parts)}\n"
    )


def recipe_row(path: Path, folder: Path) -> tuple[str, ...]:
    facts = read_header(path)
    name = f"`{path.relative_to(folder).with_suffix('').as_posix()}`"
    command = facts.get("Command", "")
    cells = (facts.get("", ""), f"`{command}`" if command else "", facts.get("Time", ""))
    return tuple(cell.replace("|", "\\|") for cell in (name, *cells, facts.get("Expected", "")))


def read_header(path: Path) -> Mapping[str, str]:
    """Read the comment at the top of a recipe: its first words under "", then its keys."""
    facts: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        found = re.match(rf"({'|'.join(HEADER_KEYS)}): *(.*)", text)
        if found:
            key, text = found.groups()
        facts[key] = f"{facts.get(key, '')} {text}".strip()
    return facts


def _command_parts(command: Any, name: str) -> list[str]:
    parts = [text] if (text := (command.help or "").strip()) else []
    rows = [_parameter_row(item) for item in command.params if not getattr(item, "hidden", False)]
    rows = [row for row in rows if row[0] != "`--help`"]
    if rows:
        parts.append(table(("argument or flag", "default", "what"), rows))
    for child, sub in getattr(command, "commands", {}).items():
        parts += [f"### speechadapt {name} {child}", *_command_parts(sub, f"{name} {child}")]
    return parts


def _parameter_row(item: Any) -> tuple[str, str, str]:
    if item.param_type_name == "argument":
        flags = item.name.upper() + ("..." if item.nargs == -1 else "")
    else:
        flags = ", ".join([*item.opts, *item.secondary_opts])
    default = "" if item.default is None or callable(item.default) else str(item.default)
    shown = "required" if item.required else default
    return f"`{flags}`", shown, (item.help or "").replace("|", "\\|").replace("\n", " ")


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

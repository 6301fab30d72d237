"""`speechadapt models`: the models at hand and their cards.

Bundled models came with the package; local ones lie in the hub's cache on this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, no_type_check

import typer

from speechadapt.cli import hub
from speechadapt.core.errors import CatalogError, CheckpointError, near_misses
from speechadapt.models.card import CARD_FILE, bundled_models, format_score, read_card, render_card

HELP = "List the bundled and local models, show a card, fetch, push and pull a model."

# The model_type of config.json, for the encoders this package knows.
KNOWN_TYPES = ("whisper", "wav2vec2-bert", "audio-spectrogram-transformer")

app = typer.Typer(help=HELP, invoke_without_command=True, pretty_exceptions_enable=False)
app.command("push")(hub.push_model)
app.command("pull")(hub.pull_model)


@dataclass(frozen=True)
class LocalModel:
    """A model this machine has.

    Args:
        name: What `--model` takes.
        origin: `bundled` or `hub cache`.
        folder: Where its files are.
        summary: One line about it.
    """

    name: str
    origin: str
    folder: Path
    summary: str


@app.callback()
@no_type_check  # typer hands over the class its Context is derived from
def list_models(context: typer.Context) -> None:
    """List the models at hand."""
    if context.invoked_subcommand is not None:
        return
    models = find_models()
    if not models:
        print("No model is at hand. `speechadapt models prefetch ID` fetches one from the hub.")
    for model in models:
        print(f"{model.name}  [{model.origin}]  {model.summary}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A bundled model, a hub id or a model folder.")],
) -> None:
    """Print a model's card."""
    folder = _locate(name)
    if (folder / CARD_FILE).is_file():
        print(render_card(read_card(folder)), end="")
        return
    page = folder / "README.md"
    if not page.is_file():
        raise CheckpointError(f"model '{name}' has neither {CARD_FILE} nor README.md.")
    print(page.read_text(encoding="utf-8"), end="")


@app.command("prefetch")
def prefetch(
    name: Annotated[str, typer.Argument(help="A hub id, such as openai/whisper-small.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Fetch a model into the hub's cache, for later use with --offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns)
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(f"could not fetch '{name}' at '{revision}': {error}") from error
    print(f"{name} is in {folder}")


def find_models() -> list[LocalModel]:
    """Return the bundled models, then the known models of the hub's cache."""
    bundled = [
        LocalModel(name, "bundled", folder, _summary(folder))
        for name, folder in bundled_models().items()
    ]
    return bundled + _cached_models()


def _cached_models() -> list[LocalModel]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    models = []
    for repository in sorted(repositories, key=lambda item: item.repo_id):
        revisions = sorted(repository.revisions, key=lambda item: item.last_modified)
        if repository.repo_type == "model" and revisions:
            folder = Path(revisions[-1].snapshot_path)
            kind = _model_type(folder)
            if kind in KNOWN_TYPES:
                models.append(LocalModel(repository.repo_id, "hub cache", folder, kind))
    return models


def _locate(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    models = {model.name: model.folder for model in find_models()}
    if name not in models:
        raise CatalogError(f"no model at hand is named '{name}'.{near_misses(name, models)}")
    return models[name]


def _summary(folder: Path) -> str:
    if not (folder / CARD_FILE).is_file():
        return f"no {CARD_FILE}"
    card = read_card(folder)
    best = ""
    if card.scores:
        first = card.scores[0]
        best = f"; {first.test_set} {first.metric.upper()} {format_score(first)}"
    return f"{card.summary} {card.parameters / 1e6:.1f} M parameters{best}"


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type", ""))
    except (json.JSONDecodeError, AttributeError):
        return ""

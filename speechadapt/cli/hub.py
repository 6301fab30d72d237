"""What `speechadapt adapters` and `speechadapt models` do with a model hub: push and pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speechadapt.adapters.card_head import CardHead

Repository = Annotated[
    str, typer.Argument(metavar="REPO_ID", help="The repository on the hub, owner/name.")
]
Private = Annotated[bool, typer.Option("--private", help="Make it private, or refuse.")]
Branch = Annotated[str, typer.Option("--revision", help="Branch; made where it is not there.")]
Revision = Annotated[str, typer.Option(help="Branch, tag or commit.")]
Licence = Annotated[
    str | None, typer.Option("--licence", "--license", help="Licence of the weights, for the card.")
]
Language = Annotated[
    list[str] | None, typer.Option(help="BCP 47 code, for the card (may be given again).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and list; send nothing.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Where to write; must not exist or be empty.")
]


def push_adapter(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The adapter's folder.")],
    repository: Repository,
    private: Private = False,
    revision: Branch = "main",
    licence: Licence = None,
    language: Language = None,
    dry_run: DryRun = False,
) -> None:
    """Send a saved adapter or composition to a model hub, as one commit.

    Its card's head is completed from what the training noted. HF_ENDPOINT names another hub,
    HF_TOKEN who asks. Pickles, and folders without a card, are refused.
    """
    from speechadapt.models.hub_folder import check_adapter

    head = check_adapter(folder)
    _push(folder, repository, head, (licence, language), private, revision, dry_run)


def pull_adapter(
    repository: Repository,
    output: Output,
    revision: Revision = "main",
    base: Annotated[
        str | None,
        typer.Option(help="The model it is to be for; another adapter is refused."),
    ] = None,
    offline: Annotated[bool, typer.Option(help="Take the base from this machine alone.")] = False,
) -> None:
    """Fetch an adapter or composition from a model hub; it appears only where it is whole."""
    from speechadapt.models.build import find_model, quiet_loading
    from speechadapt.models.hub_folder import check_adapter

    encoder = None
    if base is not None:
        from speechadapt.encoders.catalog import load_encoder

        with quiet_loading():
            encoder = load_encoder(find_model(base, offline=offline))
    head = _pull(repository, output, revision, lambda folder: check_adapter(folder, encoder))
    print(f"{output} holds '{head.name}' for {head.base or 'a model built in memory'}")


def push_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The model's folder.")],
    repository: Repository,
    private: Private = False,
    revision: Branch = "main",
    licence: Licence = None,
    language: Language = None,
    dry_run: DryRun = False,
) -> None:
    """Send a model folder to a model hub, as one commit.

    Its card's head is completed from card.json. HF_ENDPOINT names another hub, HF_TOKEN who asks.
    Pickles, and folders without a card or without safetensors, are refused.
    """
    from speechadapt.models.hub_folder import check_model

    head = check_model(folder)
    _push(folder, repository, head, (licence, language), private, revision, dry_run)


def pull_model(repository: Repository, output: Output, revision: Revision = "main") -> None:
    """Fetch a model from a model hub into a folder, safetensors alone; only where it is whole."""
    from speechadapt.models.hub_folder import check_model

    _pull(repository, output, revision, check_model)
    print(f"{output} holds {repository}")


def _push(
    folder: Path,
    repository: str,
    head: CardHead,
    given: tuple[str | None, list[str] | None],
    private: bool,
    revision: str,
    dry_run: bool,
) -> None:
    from speechadapt.adapters.card_head import with_head
    from speechadapt.models import hub

    files = hub.files_to_send(folder)
    licence, language = given
    text = (folder / hub.CARD).read_text(encoding="utf-8")
    card = with_head(text, head, licence=licence or "", languages=tuple(language or ()))
    if card != text:
        files = hub.files_to_send(folder, card)
    if dry_run:
        place = f"{hub.endpoint() or 'https://huggingface.co'}/{repository}, branch {revision}"
        print(f"would send {len(files)} files to {place}{', private' if private else ''}:")
        for one in files:
            note = "  (its head is completed)" if one.content is not None else ""
            print(f"{one.size:>14,} bytes  {one.name}{note}")
        print(f"{sum(one.size for one in files):>14,} bytes")
        return
    print(hub.push(files, repository, private=private, revision=revision))


def _pull(
    repository: str, output: Path, revision: str, check: Callable[[Path], CardHead]
) -> CardHead:
    from speechadapt.models import hub

    heads: list[CardHead] = []
    hub.pull(repository, output, lambda folder: heads.append(check(folder)), revision=revision)
    return heads[0]

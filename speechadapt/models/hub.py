"""Folders on a model hub: sent as one commit, fetched whole and checked before they appear.

The hub is the one that `HF_ENDPOINT` names, or huggingface.co; who asks is known by `HF_TOKEN` or
by `hf auth login`. No pickle is sent or fetched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
MAIN = "main"
FETCHED = ("*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.md", "LICENSE*")
_PICKLES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"))
_PICKLED = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_SHOWN = 5


@dataclass(frozen=True)
class HubFile:
    """A file to send.

    Args:
        name: Its path in the repository.
        path: Where it lies.
        content: What to send in its place; None for the file as it is.
    """

    name: str
    path: Path
    content: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes to send."""
        return self.path.stat().st_size if self.content is None else len(self.content)


def files_to_send(folder: Path, card: str | None = None) -> tuple[HubFile, ...]:
    """List what a folder holds, hidden files left out.

    Args:
        folder: The folder.
        card: What to send as its card; None for the card as it is.

    Raises:
        CheckpointError: It has no card, or holds a pickle.
    """
    if not (folder / CARD).is_file():
        raise CheckpointError(
            f"'{folder}' was to be sent to a hub, but has no {CARD}. Write one that says what the "
            "model is, what it was trained on and what it cannot do."
        )
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts)
    ]
    pickles = [str(path.relative_to(folder)) for path in found if _is_pickle(path)]
    if pickles:
        more = f" and {len(pickles) - _SHOWN} more" if len(pickles) > _SHOWN else ""
        raise CheckpointError(
            f"'{folder}' was to be sent to a hub, but {', '.join(pickles[:_SHOWN])}{more} can run "
            "code in whoever loads it. Save weights as safetensors, and take the file out."
        )
    return tuple(
        HubFile(
            path.relative_to(folder).as_posix(),
            path,
            card.encode() if card is not None and path == folder / CARD else None,
        )
        for path in found
    )


def push(
    files: Sequence[HubFile],
    repository: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    message: str = "Upload with speechadapt",
) -> str:
    """Send files as one commit; the repository is made where it is not there.

    Args:
        files: What `files_to_send` listed.
        repository: `owner/name`.
        private: Make it private; one that is there and public is refused.
        revision: The branch, which is made where it is not there.
        message: The commit's message.

    Returns:
        The commit's address.

    Raises:
        CheckpointError: The hub cannot be reached or refuses.
        ConfigError: It is to be private and is public, or is no `owner/name`.
    """
    from huggingface_hub import CommitOperationAdd

    _check_name(repository)
    with _explained(f"'{repository}' was to be sent to"):
        api = hub()
        api.create_repo(repository, private=private or None, repo_type="model", exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(
                f"'{repository}' was to be private, but is there already and public. Nothing was "
                "sent. Make it private on the hub, or choose another name."
            )
        if revision != MAIN:
            api.create_branch(repository, branch=revision, exist_ok=True)
        operations = [
            CommitOperationAdd(one.name, one.path if one.content is None else one.content)
            for one in files
        ]
        commit = api.create_commit(
            repository, operations, commit_message=message, revision=revision
        )
    return str(commit.commit_url)


def pull(
    repository: str, output: Path, check: Callable[[Path], None], *, revision: str = MAIN
) -> None:
    """Fetch a repository into a folder, which appears only once it was checked.

    Args:
        repository: `owner/name`.
        output: The folder to be; must not be there or be empty.
        check: Raises where the files are not what they should be.
        revision: Branch, tag or commit.

    Raises:
        CatalogError: There is no such repository or revision.
        CheckpointError: The hub cannot be reached or refuses, or what `check` raises.
        ConfigError: `output` is not empty, or `repository` is no `owner/name`.
    """
    from huggingface_hub import snapshot_download

    _check_name(repository)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"'{output}' was to be written, but is there already and not empty.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".pull-") as temporary:
        folder = Path(temporary, output.name)
        folder.mkdir()
        with _explained(f"'{repository}' at '{revision}' was to be fetched from"):
            snapshot_download(
                repository,
                revision=revision,
                local_dir=folder,
                allow_patterns=list(FETCHED),
                endpoint=endpoint(),
            )
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        check(folder)
        if output.exists():
            output.rmdir()
        folder.rename(output)


def endpoint() -> str | None:
    """Return the hub's address that `HF_ENDPOINT` names; None for the usual one."""
    return os.environ.get("HF_ENDPOINT") or None


def hub() -> HfApi:
    """Return the client of the hub."""
    from importlib.metadata import version

    from huggingface_hub import HfApi

    return HfApi(
        endpoint=endpoint(), library_name="speechadapt", library_version=version("speechadapt")
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the hub client's errors into ours."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # the base of all errors of the HTTP library, which is another one in each major version
    transport = cast(type[Exception], HfHubHTTPError.__mro__[1])
    where = endpoint() or "huggingface.co"
    try:
        yield
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CatalogError(
            f"{what} {where}, which has no such thing for you: {_first_line(error)} A private or "
            "gated one needs HF_TOKEN, or hf auth login."
        ) from error
    except HfHubHTTPError as error:
        refused = error.response is not None and error.response.status_code in (401, 403)
        hint = " Give a token that may write: HF_TOKEN, or hf auth login." if refused else ""
        raise CheckpointError(f"{what} {where}, but: {_first_line(error)}{hint}") from error
    except (transport, OSError, ValueError, RuntimeError) as error:
        cause = f" {_first_line(error.__cause__)}" if error.__cause__ is not None else ""
        raise CheckpointError(f"{what} {where}, but: {_first_line(error)}{cause}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _check_name(repository: str) -> None:
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(f"a repository of a hub is named owner/name, got '{repository}'.")


def _is_pickle(path: Path) -> bool:
    if path.suffix.lower() in _PICKLES:
        return True
    with path.open("rb") as handle:
        if handle.read(2) in _PICKLED:
            return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as packed:  # torch.save writes one with a pickle in it
        return any(name.endswith(".pkl") for name in packed.namelist())

"""The formats of other tools by name: what a folder is, reading it, writing one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.attach import remove
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.interop import adapterhub, adapterhub_export, mms, peft, peft_export
from speechadapt.adapters.interop.files import read_settings
from speechadapt.adapters.interop.foreign import Foreign, install
from speechadapt.core.errors import CatalogError, CheckpointError, near_misses
from speechadapt.encoders.base import Encoder

READ = ("peft", "adapterhub", "mms")
WRITTEN = ("peft", "adapterhub")


def detect(source: Path) -> str:
    """Tell which tool wrote a folder or a file.

    Args:
        source: An adapter folder, or an MMS file.

    Returns:
        A name of `READ`.

    Raises:
        CheckpointError: None of them did.
    """
    if source.is_file() or mms.languages(source):
        return "mms"
    settings = read_settings(source / peft.CONFIG_FILE)
    if "peft_type" in settings:
        return "peft"
    if str(settings.get("version", "")).startswith("adapters.") or "model_class" in settings:
        return "adapterhub"
    if settings.get("format") == store.FORMAT:
        raise CheckpointError(
            f"'{source}' was to be imported, but is an adapter of this package. Load it as it is."
        )
    raise CheckpointError(
        f"'{source}' was to be imported, but its {peft.CONFIG_FILE} is of none of the tools that "
        f"can be read ({', '.join(READ)})."
    )


def read(
    source: Path,
    encoder: Encoder,
    form: str | None = None,
    *,
    allow_pickle: bool = False,
    encoder_only: bool = False,
    language: str | None = None,
) -> Foreign:
    """Translate an adapter that another tool wrote.

    Args:
        source: Its folder, or an MMS file.
        encoder: The encoder it was trained on.
        form: A name of `READ`; found out where None.
        allow_pickle: Whether a pickle may be read, by torch's restricted reader.
        encoder_only: Whether to leave out what lies in a decoder beside the encoder.
        language: Which language of a folder of MMS files.

    Raises:
        CatalogError: There is no such format.
        CheckpointError: It cannot be read, translated or used with this encoder.
        SiteError: It adapts a module of the encoder where no adapter can stand.
    """
    chosen = detect(source) if form is None else form
    if chosen == "peft":
        return peft.read(source, encoder, allow_pickle, encoder_only)
    if chosen == "adapterhub":
        return adapterhub.read(source, encoder, allow_pickle, encoder_only)
    if chosen == "mms":
        return mms.read(source, encoder, language, allow_pickle)
    raise CatalogError(f"no format to import is called '{chosen}'.{near_misses(chosen, READ)}")


def convert(encoder: Encoder, foreign: Foreign, folder: Path, name: str = "imported") -> Path:
    """Save a translated adapter, and the head that came with it, as a folder of this package.

    Args:
        encoder: The encoder it was trained on; it is as before afterwards.
        foreign: What was read.
        folder: Where to write.
        name: What the card calls it.

    Returns:
        `folder`.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape than the encoder's.
        ConfigError: Settings are out of range.
        SiteError: The method cannot stand at one of the roles.
    """
    handle = install(encoder, foreign, name, activate=False)
    try:
        head = dict(foreign.head) or None
        made_by = None if head is None else {"format": foreign.source}
        return store.save(handle, folder, head=head, head_config=made_by)
    finally:
        remove(encoder, name)


def write(
    handle: Handle,
    folder: Path,
    form: str,
    *,
    architecture: str | None = None,
    head: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write an attachment in another tool's format.

    Args:
        handle: The attachment.
        folder: Where to write.
        form: A name of `WRITTEN`.
        architecture: For PEFT, the transformers class it is to be loaded onto.
        head: For PEFT, tensors of a task head to save along.

    Raises:
        CatalogError: There is no such format.
        ConfigError: The adapter has no counterpart there.
    """
    writers: Mapping[str, Any] = {
        "peft": lambda: peft_export.write(handle, folder, architecture, head),
        "adapterhub": lambda: adapterhub_export.write(handle, folder),
    }
    if form not in writers:
        raise CatalogError(f"no format to export is called '{form}'.{near_misses(form, WRITTEN)}")
    written: Path = writers[form]()
    return written

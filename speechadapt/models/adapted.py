"""A recogniser's trained parts in one folder: an adapter, a CTC head, or both.

The folder is that of `adapters.store`; what stands under `head` in `adapter_config.json` says how
its `head:` tensors are read. A folder without an adapter has the method `""` and no sites: it is a
head for a frozen encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from speechadapt.adapters import store
from speechadapt.adapters.handle import Handle, base_of
from speechadapt.core.errors import CheckpointError, ConfigError, DataError
from speechadapt.core.files import atomic_write, atomic_write_json, atomic_write_text
from speechadapt.decoders.ctc.decoder import CtcDecoder, CtcOptions
from speechadapt.decoders.options import parse_options
from speechadapt.encoders.base import Encoder
from speechadapt.text.alphabet import Alphabet

HEAD_ALONE = ""


@dataclass(frozen=True)
class Head:
    """A CTC head with what its recogniser was trained with.

    Args:
        alphabet: One symbol per output.
        margin_s: Hiss on either side of a clip, in seconds.
        padding: How the encoder was padded: `full` or `native`.
        language: BCP 47 code of its one language; None where it has several or nobody says.
    """

    alphabet: Alphabet
    margin_s: float = 0.0
    padding: str = "full"
    language: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        letters = self.alphabet
        return {
            "kind": "ctc",
            "symbols": list(letters.symbols),
            "blank": letters.blank,
            "delimiter": letters.delimiter,
            "specials": sorted(letters.specials),
            "margin_s": self.margin_s,
            "padding": self.padding,
            "language": self.language,
        }


def save_adapted(
    folder: Path,
    encoder: Encoder,
    handle: Handle | None,
    head: nn.Linear,
    description: Head,
    *,
    training: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> Path:
    """Write an adapter and its head, or a head alone.

    Args:
        folder: Is made; files of an earlier save are replaced.
        encoder: What they were trained on.
        handle: The adapter; None for a head alone.
        head: The linear map from frames to symbols.
        description: What reads it.
        training: What it was trained on and how, as JSON values.
        scores: What it scored where, as JSON values.

    Returns:
        `folder`.

    Raises:
        CheckpointError: A tensor of the adapter holds NaN or infinity.
    """
    if handle is not None:
        return store.save(
            handle,
            folder,
            training=training,
            scores=scores,
            head=head.state_dict(),
            head_config=description.to_json(),
        )
    details = _head_alone(encoder) | {
        "training": dict(training),
        "scores": dict(scores),
        "head": description.to_json(),
    }
    tensors = {
        f"head:{name}": tensor.detach().cpu().contiguous().clone()
        for name, tensor in head.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / store.WEIGHTS, lambda path: save_file(tensors, path))
    atomic_write_text(folder / "README.md", _card(folder.name, details))
    atomic_write_json(folder / store.CONFIG, details)
    return folder


def _head_alone(encoder: Encoder) -> dict[str, Any]:
    """Return what `adapter_config.json` says where there is no adapter."""
    return {
        "format": store.FORMAT,
        "format_version": store.FORMAT_VERSION,
        "method": HEAD_ALONE,
        "method_version": 1,
        "config": {},
        "roles": [],
        "sites": [],
        "train_norms": "none",
        "norm_sites": [],
        "parameters": 0,
        "source": "",
        "base": base_of(encoder),
        "versions": {name: version(name) for name in ("speechadapt", "torch", "transformers")},
    }


def _card(name: str, details: Mapping[str, Any]) -> str:
    base, head = details["base"], details["head"]
    return (
        f"# {name}\n\nA CTC head of {len(head['symbols'])} symbols for the frozen encoder of "
        f"{base['name'] or 'a model built in memory'} ({base['family']}), without an adapter. The "
        "encoder's own weights are not in this folder.\n\n"
        f"| | |\n|---|---|\n| weights | `{base['fingerprint']}` |\n"
        f"| symbols | `{' '.join(head['symbols'])}` |\n"
    )


def read_head(stored: store.Stored) -> Head | None:
    """Return what a folder says about its head, None where it holds none.

    Args:
        stored: The folder, read.

    Raises:
        CheckpointError: What it says cannot be used.
    """
    said = stored.details.get("head")
    if said is None:
        return None
    try:
        if said["kind"] != "ctc":
            raise ValueError(f"kind '{said['kind']}', which is not ctc")
        alphabet = Alphabet(
            tuple(map(str, said["symbols"])),
            said["blank"],
            said["delimiter"],
            frozenset(said["specials"]),
        )
        return Head(alphabet, float(said["margin_s"]), str(said["padding"]), said["language"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise CheckpointError(
            f"the head of '{stored.folder}' cannot be used: {type(error).__name__}: {error}. "
            f"Its {store.CONFIG} is damaged or of a newer release."
        ) from error


def base_name(stored: store.Stored) -> str:
    """Return the name of the model that a folder was trained on.

    Args:
        stored: The folder, read.

    Raises:
        ConfigError: It was a model built in memory, which has no name.
    """
    name = stored.base.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"adapter '{stored.folder.name}' does not say which model it was trained on. "
            "Name the model."
        )
    return name


def make_decoder(
    stored: store.Stored, head: Head, dim: int, options: Mapping[str, Any]
) -> CtcDecoder:
    """Return the decoder of a saved head, in float32 on the CPU.

    Args:
        stored: The folder, read.
        head: What it says about its head.
        dim: Width of the encoder's frames.
        options: The decoder's options by name.

    Raises:
        CheckpointError: The tensors do not fit the alphabet and the width.
        ConfigError: An option is unknown or out of range.
    """
    decoder = CtcDecoder(
        head.alphabet, dim, parse_options(CtcOptions, options, CtcDecoder.name)
    ).eval()
    wanted = {name: tuple(tensor.shape) for name, tensor in decoder.head.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.head.items()}
    if wanted != found:
        raise CheckpointError(
            f"the head of '{stored.folder}' should hold {wanted}, but holds {found}. "
            "It belongs to another encoder, or the file is damaged."
        )
    tensors: dict[str, Tensor] = {name: part.float() for name, part in stored.head.items()}
    decoder.head.load_state_dict(tensors)
    return decoder


def attach_saved(encoder: Encoder, stored: store.Stored) -> None:
    """Attach a saved adapter, as `adapter`; where there is a head alone, check the encoder only.

    Args:
        encoder: The encoder.
        stored: The folder, read.

    Raises:
        CheckpointError: The encoder is another one, or the adapter is damaged.
    """
    if stored.method == HEAD_ALONE:
        store.check_base(encoder, stored)
        return
    store.load(encoder, stored.folder, name="adapter")

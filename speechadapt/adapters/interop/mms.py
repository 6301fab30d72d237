"""The language adapters of transformers' MMS models: `adapter.<language>.safetensors`.

One file holds, per layer, `...layers.<i>.adapter_layer.{norm,linear_1,linear_2}.{weight,bias}` and
the language's head `lm_head.{weight,bias}`. Their base, wav2vec 2.0, is none of the encoders here:
the adapter is read for an encoder of as many layers and the same width, such as one distilled from
it or trained to its frames; on any other base it means nothing.

Source: https://arxiv.org/abs/2305.13516; the files as transformers 5 reads and writes them.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from speechadapt.adapters.interop.files import read_pickle, read_safetensors
from speechadapt.adapters.interop.foreign import Foreign
from speechadapt.core.errors import CheckpointError, near_misses
from speechadapt.encoders.base import Encoder

_KEY = re.compile(
    r"(?:.*\.)?layers\.(?P<layer>\d+)\.adapter_layer\."
    r"(?P<part>norm|linear_1|linear_2)\.(?P<kind>weight|bias)"
)
_PARTS = {"norm": "norm", "linear_1": "down", "linear_2": "up"}
_HEAD = "lm_head."


def languages(folder: Path) -> dict[str, Path]:
    """Return the adapter files of a folder by language, safetensors before pickles."""
    found: dict[str, Path] = {}
    for ending in ("safetensors", "bin"):
        for path in sorted(folder.glob(f"adapter.*.{ending}")):
            found.setdefault(path.name.removeprefix("adapter.").removesuffix(f".{ending}"), path)
    return found


def read(
    source: Path, encoder: Encoder, language: str | None = None, allow_pickle: bool = False
) -> Foreign:
    """Translate one language's adapter.

    Args:
        source: The file, or a folder of such files.
        encoder: An encoder with as many layers of the same width.
        language: Which file of a folder; not needed where it holds one.
        allow_pickle: Whether a `.bin` file may be read.

    Raises:
        CheckpointError: There is no such file, it is damaged, or the encoder has other layers.
    """
    path = source if source.is_file() else _choose(source, language)
    if path.suffix == ".bin" and not allow_pickle:
        raise CheckpointError(
            f"'{path}' is a pickle, which is not read unasked. If you trust where it comes from, "
            "allow pickles (--allow-pickle)."
        )
    weights = read_pickle(path) if path.suffix == ".bin" else read_safetensors(path)
    tensors: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = _KEY.fullmatch(name)
        if match is not None:
            part = f"bottleneck.{_PARTS[match['part']]}.{match['kind']}"
            tensors[f"layer.{match['layer']}.end:{part}"] = value.float()
        elif name.startswith(_HEAD):
            head[name] = value
        else:
            raise CheckpointError(
                f"'{path}' was to be read as an MMS adapter, but holds '{name}'. Such a file holds "
                "adapter_layer tensors and an lm_head alone."
            )
    roles = tuple(dict.fromkeys(key.partition(":")[0] for key in tensors))
    _check_layers(path, encoder, roles)
    return Foreign(
        source="mms",
        folder=path,
        method="mms",
        config={"bottleneck": _width(tensors)},
        roles=roles,
        tensors=tensors,
        head=head,
        notes={"language": path.name.split(".")[1] if path.name.count(".") > 1 else language},
    )


def _choose(folder: Path, language: str | None) -> Path:
    found = languages(folder)
    if language is None and len(found) == 1:
        return next(iter(found.values()))
    if language is None or language not in found:
        asked = "no language was named" if language is None else f"'{language}' was asked for"
        raise CheckpointError(
            f"an MMS adapter was looked for in '{folder}': {asked}."
            f"{near_misses(language or '', found)}"
        )
    return found[language]


def _check_layers(path: Path, encoder: Encoder, roles: tuple[str, ...]) -> None:
    own = {role for role in encoder.sites if role.endswith(".end")}
    if set(roles) != own:
        raise CheckpointError(
            f"'{path}' holds adapters for {len(roles)} layers, this {encoder.family} has "
            f"{len(own)}. Give the base it was trained on."
        )


def _width(tensors: dict[str, Tensor]) -> int:
    first = next(value for key, value in tensors.items() if key.endswith("down.weight"))
    return int(first.shape[0])

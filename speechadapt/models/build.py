"""From a name to a model: bundled models, local folders, hub ids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from speechadapt.audio.margin import SETTINGS_FILE
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError, near_misses
from speechadapt.models.card import CARD_FILE, bundled_models, read_card

if TYPE_CHECKING:
    from speechadapt.adapters.store import Stored
    from speechadapt.decoders.base import Decoder
    from speechadapt.encoders.base import Encoder
    from speechadapt.models.bridged import Bridge
    from speechadapt.models.recogniser import Recogniser
    from speechadapt.models.restorer import Restorer

_PRETRAINED = Path(__file__).parents[1] / "pretrained"
_SHORT_NAMES = {"diffusion": "masked_diffusion"}
_DIFFUSION_MODEL = "mini-diffusion"
RESTORER, RESTORER_TYPE = "mini-restorer", "speechadapt-restorer"


def default_model() -> str:
    """Return the name of the model used where none is named.

    Raises:
        CatalogError: No model came with the package.
    """
    models = bundled_models(_PRETRAINED)
    chosen = _PRETRAINED / "default.txt"
    if chosen.is_file():
        name = chosen.read_text(encoding="utf-8").strip()
        if name in models:
            return name
    if not models:
        raise CatalogError("no model came with the package; name a folder or a hub id.")
    return next(iter(models))


def find_model(
    name: str | Path | None = None, *, revision: str | None = None, offline: bool = False
) -> Path:
    """Return the folder of a model, fetched from the hub if need be.

    Args:
        name: A bundled model, a folder, or a hub id (`owner/name`); None means the default.
        revision: Hub branch, tag or commit.
        offline: Use only what is on this machine.

    Raises:
        CatalogError: There is no such model; near misses are named.
        ConfigError: A revision was asked of a model that has none.
    """
    from speechadapt.encoders.catalog import locate

    asked = default_model() if name is None else str(name)
    models = bundled_models(_PRETRAINED)
    if asked in models:
        if revision is not None:
            raise ConfigError(f"revision '{revision}' was asked of '{asked}', which is bundled.")
        return models[asked]
    if "/" not in asked and not Path(asked).expanduser().is_dir():
        raise CatalogError(
            f"there is no bundled model or folder '{asked}'.{near_misses(asked, models)} "
            "A hub id reads owner/name."
        )
    return locate(asked, revision=revision, offline=offline)[0]


@overload
def load(  # type: ignore[overload-overlap]
    name: Literal["mini-restorer"], *, device: str = "cpu", dtype: str = "float32"
) -> Restorer: ...


@overload
def load(
    name: str | Path | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    offline: bool = False,
    decoder: str | None = None,
    adapter: str | Path | None = None,
    **options: Any,
) -> Recogniser: ...


def load(
    name: str | Path | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    offline: bool = False,
    decoder: str | None = None,
    adapter: str | Path | None = None,
    **options: Any,
) -> Recogniser | Restorer:
    """Load a recogniser, or the bundled restorer.

    Weights are brought to `dtype` whatever they are stored in, so half-precision files compute in
    float32 on a CPU.

    Args:
        name: A bundled model, a folder in transformers' format, or a hub id; None means the model
            that `adapter` was trained on, or else the bundled default. `mini-restorer` gives a
            restorer, which takes device and dtype alone; for other restorers see
            `models.restorer_folder.load_restorer`.
        device: A torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        revision: Hub branch, tag or commit.
        offline: Use only what is on this machine.
        decoder: `ctc`, `whisper_ar` or `diffusion` (means `mini-diffusion` where no model is
            named); None takes the one the folder's architecture names, or the head that came with
            `adapter`.
        adapter: Folder of a saved adapter, head or composition for this model; or a composition
            of such folders, as `fuse(digits, orders)` (see `adapters.composition`).
        options: The decoder's options (`CtcOptions`, `WhisperOptions`, `DiffusionOptions`),
            `padding=full|native` for Whisper, `decoder_model` that a bridge leads to, and
            `encoder_model` that a diffusion decoder hears with, where not found by their names.

    Raises:
        CatalogError: No such model or decoder, or an architecture nobody reads.
        CheckpointError: The model is incomplete or damaged, or the adapter is another model's.
        ConfigError: An option is unknown or out of range.

    Example:
        >>> recogniser = speechadapt.load("mini-usm")  # doctest: +SKIP
        >>> recogniser.transcribe("talk.flac").text  # doctest: +SKIP
    """
    if str(name) == RESTORER:
        return _load_bundled_restorer(device, dtype)
    where = {"device": device, "dtype": dtype, "revision": revision, "offline": offline}
    if adapter is not None:
        return _load_adapted(name, str(adapter), where, decoder, options)
    decoder = _SHORT_NAMES.get(decoder or "", decoder)
    if name is None and decoder == "masked_diffusion":
        name = _diffusion_model()
    folder = find_model(name, revision=revision, offline=offline)
    config = _read_config(folder)
    kind = _decoder_kind(folder, config, decoder)
    if kind.name == "masked_diffusion":
        return _load_hearing(folder, str(name), config, where, options)
    shown = default_model() if name is None else str(name)
    return _load_whole(folder, shown, kind, where, options)


def _load_whole(
    folder: Path,
    shown: str,
    kind: type[Decoder],
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Recogniser:
    """Load a folder that holds encoder and decoder."""
    from speechadapt.models.recogniser import Recogniser

    language, dtype, device = _language(folder), where["dtype"], where["device"]
    with quiet_loading():
        parts = kind.from_folder(folder, _decoder_options(kind.name, options, language))
    encoder = _encoder(folder, str(options.get("padding", "full")), dtype, device)
    return Recogniser(shown, encoder, _placed(parts, dtype, device), language, margin_of(folder))


def _load_bundled_restorer(device: str, dtype: str) -> Restorer:
    import torch

    from speechadapt.models.restorer_folder import find_restorer, load_restorer

    return load_restorer(find_restorer(RESTORER)).to(device, getattr(torch, dtype))


def _diffusion_model() -> str:
    """Return the model meant where the diffusion decoder is asked for and no model is named."""
    if _DIFFUSION_MODEL not in bundled_models(_PRETRAINED):
        raise CatalogError(
            f"decoder 'diffusion' was asked for and no model; '{_DIFFUSION_MODEL}', which that "
            "means, did not come with this package. Name a model with such a decoder: "
            "model=FOLDER, --model FOLDER (the recipes diffusion/* make one)."
        )
    return _DIFFUSION_MODEL


def _decoder_kind(folder: Path, config: Mapping[str, Any], asked: str | None) -> type[Decoder]:
    """Return the decoder that was asked for, or the one that a folder's architecture names."""
    from speechadapt.decoders.catalog import decoder_class, decoder_for

    if config.get("model_type") == RESTORER_TYPE:
        raise CatalogError(f"'{folder.name}' is a restorer, which `speechadapt restore` takes.")
    if asked is None:
        return decoder_for(config)
    kind = decoder_class(asked)
    if not kind.claims(config):
        raise ConfigError(
            f"decoder '{asked}' was asked of {folder.name}, whose architecture is "
            f"{config.get('architectures')}."
        )
    return kind


def _load_hearing(
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Recogniser:
    """Load a decoder that names the encoder it hears with, and that encoder."""
    from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
    from speechadapt.models import hearing
    from speechadapt.models.recogniser import Recogniser

    needed = hearing.read_hearing(folder, config, options)
    try:
        other = find_model(needed.name, offline=where["offline"])
    except CatalogError as error:
        raise hearing.missing_encoder(needed, folder.name, error) from error
    hearing.check_encoder(needed, folder.name, other)
    language = _language(folder)
    settings = _decoder_options(DiffusionDecoder.name, needed.options, language)
    parts = DiffusionDecoder.from_folder(folder, settings)
    encoder = _encoder(other, needed.heard.padding, where["dtype"], where["device"])
    if encoder.dim != parts.network.shape.condition_dim:
        raise CheckpointError(
            f"'{folder.name}' takes frames of width {parts.network.shape.condition_dim}, "
            f"'{needed.name}' gives {encoder.dim}."
        )
    placed = _placed(parts, where["dtype"], where["device"])
    return Recogniser(name, encoder, placed, language, needed.heard.margin_s)


def _load_adapted(
    name: str | Path | None,
    adapter: str,
    where: Mapping[str, Any],
    decoder: str | None,
    options: Mapping[str, Any],
) -> Recogniser:
    """Load a recogniser with what was trained for it."""
    from speechadapt.models import adapted, bridged
    from speechadapt.models.composed import read_wanted
    from speechadapt.models.recogniser import Recogniser

    put_on = read_wanted(adapter)
    stored = put_on.stored
    asked = adapted.base_name(stored) if name is None else name
    bridge = bridged.read_bridge(stored)
    if bridge is not None:
        return _load_bridged(asked, stored, bridge, where, options)
    head = adapted.read_head(stored)
    if head is None:
        # an adapter for clips at their native length is of no use on the padded window
        heard = (stored.details.get("training") or {}).get("padding", "full")
        options = ({} if heard == "full" else {"padding": heard}) | dict(options)
        recogniser = load(asked, decoder=decoder, **where, **options)
        recogniser.speaks = put_on.attach(recogniser.encoder)
        return recogniser
    if decoder not in (None, "ctc"):
        raise ConfigError(
            f"decoder '{decoder}' was asked of the adapter '{Path(adapter).name}', which has a "
            "CTC head."
        )
    base = find_model(asked, revision=where["revision"], offline=where["offline"])
    dtype, device = where["dtype"], where["device"]
    encoder = _encoder(base, str(options.get("padding", head.padding)), dtype, device)
    speaks = put_on.attach(encoder)
    wanted = {key: value for key, value in options.items() if key != "padding"}
    settings = _decoder_options("ctc", wanted, head.language)
    parts = adapted.make_decoder(stored, head, encoder.dim, settings)
    placed = _placed(parts, dtype, device)
    recogniser = Recogniser(str(asked), encoder, placed, head.language, head.margin_s)
    recogniser.speaks = speaks
    return recogniser


def _load_bridged(
    name: str | Path,
    stored: Stored,
    bridge: Bridge,
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Recogniser:
    """Load an encoder, the bridge trained for it, and the decoder it leads to."""
    from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
    from speechadapt.models import bridged
    from speechadapt.models.recogniser import Recogniser

    wanted = dict(options)
    asked = wanted.pop("decoder_model", bridge.decoder)
    if wanted.pop("padding", "native") != "native":
        raise ConfigError(
            "padding=full was asked of a bridge, which gives no frames beyond a clip's end. "
            "Leave padding out."
        )
    dtype, device, offline = where["dtype"], where["device"], where["offline"]
    base = find_model(name, revision=where["revision"], offline=offline)
    try:
        other = find_model(asked, offline=offline)
    except CatalogError as error:
        raise CatalogError(
            f"the bridge '{stored.folder.name}' leads to the decoder of '{bridge.decoder}', but "
            f"{error} Name that model's folder: decoder_model=FOLDER."
        ) from error
    bridged.check_decoder(other, bridge)
    language = _language(other)
    encoder = bridged.bridge_saved(_encoder(base, "native", dtype, device), stored.folder, bridge)
    with quiet_loading():
        parts = WhisperDecoder.from_folder(
            other, _decoder_options("whisper_ar", wanted | {"padding": "native"}, language)
        )
    placed = _placed(parts, dtype, device)
    return Recogniser(str(name), encoder, placed, language, bridge.margin_s)


def _encoder(folder: Path, padding: str, dtype: str, device: str) -> Encoder:
    from speechadapt.encoders.catalog import load_encoder

    with quiet_loading():
        return load_encoder(folder, padding=padding, dtype=dtype, device=device)


def _placed(parts: Decoder, dtype: str, device: str) -> Decoder:
    import torch

    return parts.to(torch.device(device), getattr(torch, dtype))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' report that the encoder leaves the decoder's weights unread.

    What matters of it, missing weights, is an error of its own in the loaders.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _decoder_options(
    decoder: str, options: Mapping[str, Any], language: str | None
) -> dict[str, Any]:
    """Leave out what concerns the encoder alone; put in the card's language where none is asked."""
    wanted = dict(options)
    if decoder == "whisper_ar":
        if language is not None and wanted.get("language") is None:
            wanted["language"] = language
        return wanted
    asked = wanted.pop("language", None)
    if asked is not None and language is not None and asked != language:
        raise ConfigError(f"language '{asked}' was asked of a model whose card names '{language}'.")
    if wanted.get("padding", "full") == "full":
        wanted.pop("padding", None)
    return wanted


def _language(folder: Path) -> str | None:
    """Return the one language of a model's card, None where it has none or several."""
    if not (folder / CARD_FILE).is_file():
        return None
    languages = read_card(folder).languages
    return languages[0] if len(languages) == 1 else None


def margin_of(folder: Path) -> float:
    """Return the margin the model was chosen with, in seconds; 0 where its folder states none."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return 0.0
    try:
        seconds = float(json.loads(path.read_text(encoding="utf-8"))["margin_s"])
    except (ValueError, KeyError, TypeError):
        seconds = -1.0
    if not 0.0 <= seconds <= 1.0:
        raise CheckpointError(f"{path} must hold margin_s, between 0 and 1 seconds.")
    return seconds


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no model folder: config.json: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold an object, got {type(config).__name__}.")
    return config

"""The sides of a comparison: decoders over the frames of one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from speechadapt.bench.options import DecoderBench
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Decoder, Hypothesis
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.store import read_config, read_heard
from speechadapt.encoders.base import Encoder
from speechadapt.models.build import find_model, load
from speechadapt.models.recogniser import Recogniser

# a search of our own without second tries, so that every side writes each text once
ONE_TRY: Mapping[str, Any] = {
    "temperature": (0.0,),
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
}
BEAMS = 5


@dataclass(frozen=True)
class Side:
    """A decoder with its settings.

    Args:
        name: As the tables say it.
        encoder: Whose frames it takes; sides of one encoder share them.
        decode: Writes a batch of frames.
        settings: What tells it from other sides of its kind.
    """

    name: str
    encoder: Encoder
    decode: Callable[[Frames, Lengths], list[Hypothesis]]
    settings: Mapping[str, Any]


def side_of(name: str, encoder: Encoder, decoder: Decoder, **settings: Any) -> Side:
    """Make a side of a decoder.

    Args:
        name: As the tables say it.
        encoder: Whose frames it takes.
        decoder: In evaluation mode.
        settings: What tells it from other sides.
    """
    kept = {"decoder": decoder.name} | settings
    rate = encoder.frame_rate
    return Side(name, encoder, lambda frames, lengths: decoder.decode(frames, lengths, rate), kept)


def searches(device: str) -> dict[str, dict[str, Any]]:
    """Return the autoregressive searches of a comparison, by name, as options of the decoder.

    Args:
        device: Where they run; on CUDA a cache of fixed size means a compiled step.
    """
    compiled = ", compiled" if device.startswith("cuda") else ""
    return {
        "autoregressive, greedy": {"beam_size": 1, "cache": "dynamic"},
        f"autoregressive, greedy, static cache{compiled}": {"beam_size": 1, "cache": "static"},
        f"autoregressive, beam {BEAMS}": {"beam_size": BEAMS, "cache": "dynamic"},
    }


def trained_sides(options: DecoderBench) -> tuple[list[Side], float, list[str]]:
    """Return the sides that trained models give.

    Args:
        options: What was asked for.

    Returns:
        The sides; the hiss on either side of a clip in seconds, as the diffusion decoder was
        trained with; and which sides there are none of, and why.

    Raises:
        CatalogError: There is no such model.
        CheckpointError: It is damaged, or no diffusion decoder.
        ConfigError: It holds no diffusion decoder.
    """
    where: dict[str, Any] = {"device": options.device, "dtype": options.dtype}
    found = load(options.model, **where)
    if not isinstance(found.decoder, DiffusionDecoder):
        raise ConfigError(
            f"--model {options.model} decodes by {found.decoder.name}; name a diffusion decoder, "
            "whose encoder the other sides then share."
        )
    sides, missing = _others(options, found, where)
    sides += diffusion_sides(options, found.encoder, found.decoder)
    return sides, found.margin_s, missing


def diffusion_sides(
    options: DecoderBench, encoder: Encoder, decoder: DiffusionDecoder
) -> list[Side]:
    """Return the diffusion sides: every selection, counts and steps, and two steps at once.

    Args:
        options: What was asked for.
        encoder: Whose frames they take.
        decoder: Lends its network and vocabulary.
    """
    plain = DiffusionOptions(seed=decoder.options.seed)
    wanted = [replace(plain, select=name) for name in options.selection_names]
    wanted += [replace(plain, num_candidates=count) for count in options.candidate_counts]
    wanted += [replace(plain, num_steps=count) for count in options.step_counts]
    wanted.append(replace(plain, ahead=2))
    return [diffusion_side(encoder, decoder, one) for one in dict.fromkeys(wanted)]


def diffusion_side(encoder: Encoder, decoder: DiffusionDecoder, options: DiffusionOptions) -> Side:
    """Return one diffusion side.

    Args:
        encoder: Whose frames it takes.
        decoder: Lends its network and vocabulary.
        options: How it writes.
    """
    told = {
        "select": options.select,
        "num_candidates": options.num_candidates,
        "num_steps": options.num_steps,
        "length_head": options.length_head is not False,
        "ahead": options.ahead,
    }
    name = f"diffusion, {options.select}, K={options.num_candidates}, {options.num_steps} steps"
    name += f", {options.ahead} at once" if options.ahead > 1 else ""
    made = DiffusionDecoder(decoder.network, decoder.vocabulary, options).eval()
    return side_of(name, encoder, made, **told)


def _others(
    options: DecoderBench, diffusion: Recogniser, where: dict[str, Any]
) -> tuple[list[Side], list[str]]:
    """Return the sides that the model of the diffusion decoder's encoder gives, and a CTC head."""
    folder = find_model(options.model)
    heard = read_heard(read_config(folder), folder.name)
    if heard is None:
        raise CheckpointError(f"'{folder.name}' names no encoder.")
    sides: list[Side] = []
    missing: list[str] = []
    try:
        whole = load(heard.name, padding=heard.padding, **where)
    except (CatalogError, CheckpointError, ConfigError) as error:
        return [], [f"autoregressive: {error}"]
    if whole.decoder.name == "whisper_ar":
        for name, settings in searches(options.device).items():
            if settings["cache"] == "static" and heard.padding == "native":
                missing.append(f"{name}: frames of one length are needed")
                continue
            made = load(heard.name, padding=heard.padding, **settings, **ONE_TRY, **where).decoder
            sides.append(side_of(name, diffusion.encoder, made, **settings))
    elif whole.decoder.name == "ctc":
        sides.append(side_of("CTC, greedy", diffusion.encoder, whole.decoder, beam_size=1))
    if options.ctc is not None:
        heads = load(adapter=options.ctc, word_timestamps=False, **where)
        told = {"adapter": options.ctc, "beam_size": 1}
        sides.append(side_of("CTC, greedy (own adapter)", heads.encoder, heads.decoder, **told))
    for kind, decoder in (("autoregressive", "whisper_ar"), ("CTC", "ctc")):
        if not any(side.settings["decoder"] == decoder for side in sides):
            missing.append(f"{kind}: '{heard.name}' has no such decoder")
    return sides, missing

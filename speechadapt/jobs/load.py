"""Load the model of a job."""

from __future__ import annotations

import os
from typing import Any

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.job_options import JobOptions
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.recognise import Recogniser

LOADER = "SPEECHADAPT_LOADER"


def load_recogniser(options: TranscribeOptions, threads: int | None = None) -> Recogniser:
    """Load the recogniser that the options name.

    The environment variable `SPEECHADAPT_LOADER`, `file.py:function`, puts another one in its
    place: the function is called with the options. Tests of the job itself use it.

    Args:
        options: What was asked for.
        threads: CPU threads; None as torch does.

    Returns:
        The recogniser, ready to decode.

    Raises:
        SpeechadaptError: The model cannot be found or loaded, or an option does not fit it.
    """
    hooked = load_by_hook(options)
    if hooked is not None:
        made: Recogniser = hooked
        return made
    import torch

    from speechadapt.core.seed import seed_everything
    from speechadapt.models.build import load
    from speechadapt.models.told import tell

    if threads is not None:
        torch.set_num_threads(threads)
    seed_everything("transcribe", options.seed)
    found = load(options.model, **load_arguments(options))
    loaded: object = found
    if not isinstance(loaded, Recogniser):
        raise ConfigError(f"'{options.model}' writes no text; `speechadapt restore` takes it.")
    tell(found, options.condition, options.hot_words, options.strength)
    return loaded


def load_arguments(options: TranscribeOptions) -> dict[str, Any]:
    """Return the keyword arguments of `models.build.load` for a job.

    Args:
        options: What was asked for.
    """
    arguments: dict[str, Any] = {
        "device": chosen_device(options.device),
        "dtype": chosen_dtype(options.dtype),
        "offline": options.offline,
        "revision": options.revision,
        **options.decoder_options,
    }
    if options.encoder_padding is not None:
        arguments["padding"] = options.encoder_padding
    if options.decoder is not None:
        arguments["decoder"] = options.decoder
    if options.adapter is not None:
        arguments["adapter"] = options.adapter
    return arguments


def chosen_device(name: str) -> str:
    """Return the device to use; `auto` takes an accelerator where there is one.

    Args:
        name: What was asked for.
    """
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(name: str, worker: int) -> str:
    """Return the device of one of several workers: accelerators are dealt out in turn.

    Args:
        name: What was asked for; a numbered device is for all workers.
        worker: The worker's number.
    """
    if os.environ.get(LOADER) or chosen_device(name) != "cuda":
        return name
    import torch

    return f"cuda:{worker % max(1, torch.cuda.device_count())}"


def chosen_dtype(name: str) -> str:
    """Return the arithmetic to use; `auto` is float32 everywhere, so that texts agree.

    Args:
        name: What was asked for.
    """
    return "float32" if name == "auto" else name


def load_by_hook(options: JobOptions) -> Any:
    """Return what stands in for the model by `SPEECHADAPT_LOADER`; None where nothing does.

    Args:
        options: What was asked for.

    Raises:
        ConfigError: The variable names no function.
    """
    import runpy

    hook = os.environ.get(LOADER)
    if not hook:
        return None
    path, _, name = hook.rpartition(":")
    try:
        maker = runpy.run_path(path)[name]
    except (OSError, KeyError) as error:
        raise ConfigError(f"{LOADER} must be file.py:function, got {hook!r}.") from error
    return maker(options)

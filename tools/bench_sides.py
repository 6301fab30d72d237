"""The two sides of a speed comparison, timed stage by stage in the same way.

A stage is the time inside one method, read by wrapping it for the length of a pass: feature
extraction, the encoder, and the decoding around it. What is left of a pass is `other` (collating,
spelling, results). An accelerator is waited for at both ends of every stage.
"""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging

STAGES = ("features", "encoder", "decoder", "other", "total")
Waveforms = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Pass:
    """One pass over all clips.

    Args:
        texts: One per clip.
        seconds: By stage, every name of `STAGES`.
        encoder_calls: Batches that went through the encoder.
        decoder_steps: Passes through the decoder network.
    """

    texts: tuple[str, ...]
    seconds: dict[str, float]
    encoder_calls: int
    decoder_steps: int


class Stopwatch:
    """Adds up seconds and calls of methods while they are wrapped.

    Args:
        device: Waited for at both ends of a timed call where it is an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        """Time a block."""
        begin = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - begin
            self.calls[name] += 1

    @contextmanager
    def timed(self, owner: Any, method: str, name: str) -> Iterator[None]:
        """Time every call of a method, on one object or on a class."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.around(name):
                return original(*args, **kwargs)

        with mock.patch.object(owner, method, call):
            yield

    @contextmanager
    def counted(self, owner: Any, method: str, name: str) -> Iterator[None]:
        """Count every call of a method, without waiting for the device."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return original(*args, **kwargs)

        with mock.patch.object(owner, method, call):
            yield

    def finish(self, texts: Sequence[str]) -> Pass:
        """Put a pass together; what the total holds beyond the stages is `other`."""
        seconds = {name: self.seconds[name] for name in STAGES}
        stages = seconds["features"] + seconds["encoder"] + seconds["decoder"]
        seconds["other"] = seconds["total"] - stages
        return Pass(
            tuple(text.strip() for text in texts),
            seconds,
            self.calls["encoder"],
            self.calls["steps"],
        )

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Side(ABC):
    """One way to turn clips into texts.

    Attributes:
        name: As the tables say it.
    """

    name: str

    @abstractmethod
    def run(self, waveforms: Waveforms, batch: int) -> Pass:
        """Transcribe clips in batches of neighbours, timing every stage."""


class Ours(Side):
    """The recogniser of this package.

    Args:
        name: As the tables say it.
        folder: The model's folder.
        device: A torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        options: Options of `speechadapt.load`.
    """

    def __init__(
        self, name: str, folder: Path, device: str, dtype: str, options: dict[str, Any]
    ) -> None:
        import speechadapt

        self.name = name
        self.device = torch.device(device)
        self.recogniser = speechadapt.load(folder, device=device, dtype=dtype, **options)

    def run(self, waveforms: Waveforms, batch: int) -> Pass:
        """Transcribe clips in batches of neighbours, timing every stage."""
        encoder, decoder = self.recogniser.encoder, self.recogniser.decoder
        watch, texts = Stopwatch(self.device), list[str]()
        with ExitStack() as stack:
            stack.enter_context(watch.timed(encoder, "extract", "features"))
            stack.enter_context(watch.timed(encoder, "forward", "encoder"))
            stack.enter_context(watch.timed(decoder, "decode", "decoder"))
            stack.enter_context(watch.counted(decoder.network.model.decoder, "forward", "steps"))
            stack.enter_context(watch.around("total"))
            for start in range(0, len(waveforms), batch):
                found = self.recogniser.decode_batch(waveforms[start : start + batch])
                texts += [hypothesis.text for hypothesis in found]
        return watch.finish(texts)


class Pipeline(Side):
    """transformers' own speech recognition pipeline.

    Args:
        name: As the tables say it.
        folder: The model's folder.
        device: A torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        generate: Arguments of `generate`.
    """

    def __init__(
        self, name: str, folder: Path, device: str, dtype: str, generate: dict[str, Any]
    ) -> None:
        from transformers import pipeline

        self.name = name
        self.device = torch.device(device)
        self.generate = generate
        self.pipeline = pipeline(
            "automatic-speech-recognition",
            model=str(folder),
            device=self.device,
            dtype=getattr(torch, dtype),
        )

    def run(self, waveforms: Waveforms, batch: int) -> Pass:
        """Transcribe clips in batches of neighbours, timing every stage."""
        pipe = self.pipeline
        watch = Stopwatch(self.device)
        with ExitStack() as stack:
            # Python looks `__call__` up on the class.
            stack.enter_context(watch.timed(type(pipe.feature_extractor), "__call__", "features"))
            stack.enter_context(watch.timed(pipe.model.model.encoder, "forward", "encoder"))
            stack.enter_context(watch.timed(pipe.model, "generate", "decoder"))
            stack.enter_context(watch.counted(pipe.model.model.decoder, "forward", "steps"))
            stack.enter_context(watch.around("total"))
            found = pipe(list(waveforms), batch_size=batch, generate_kwargs=dict(self.generate))
        watch.seconds["decoder"] -= watch.seconds["encoder"]  # `generate` runs the encoder
        return watch.finish([one["text"] for one in found])


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' remarks on doubled limits, which the pipeline repeats every batch."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def alternate(
    sides: Sequence[Side],
    waveforms: Waveforms,
    batch: int,
    rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[list[Pass]]:
    """Let sides take turns; who goes first changes from round to round.

    The first batch goes through every side once before, untimed.

    Returns:
        The passes of every side, one per round.
    """
    passes: list[list[Pass]] = [[] for _ in sides]
    with quiet():
        for side in sides:
            side.run(waveforms[-batch:], batch)
        for turn in range(rounds):
            order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
            for index in order:
                passes[index].append(sides[index].run(waveforms, batch))
                total = passes[index][-1].seconds["total"]
                say(f"round {turn + 1} of {rounds}, {sides[index].name}: {total:.2f} s")
    return passes

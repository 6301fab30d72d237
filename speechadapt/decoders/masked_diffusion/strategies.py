"""The ways of writing a canvas: which places are hidden, asked for and settled in which step.

Source: `pdd` is the parallel diffusion decoding of Whisfusion (arXiv 2508.07048); `confidence` and
`ancestral` are the greedy and the ancestral sampler of SMDM (arXiv 2410.18514), `semi_block` the
block-wise one of LLaDA (arXiv 2502.09992).
Differs: every candidate has its own budget of places (the greedy sampler of the source shares one
over a batch); the first step of `pdd`, in which all candidates are alike, is computed for one of
them; an utterance that a step leaves unchanged is left out of the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.masked_diffusion.ahead import write_ahead
from speechadapt.decoders.masked_diffusion.canvas import Canvas, Marks, Numbers, Predict
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.engines.reuse import Share

_LEAST_KEPT = 0.5  # `diversity=masks`: the smallest share of the first guess that is hidden again


def fill(
    predict: Predict, canvas: Canvas, options: DiffusionOptions, share: Share | None = None
) -> None:
    """Write a canvas.

    Args:
        predict: The network.
        canvas: Is written; every open place of it holds a token afterwards.
        options: Strategy, steps and randomness.
        share: Processes that compute the steps of `options.ahead` with one another; all of them
            write the same canvas.

    Raises:
        ConfigError: There are not as many processes as steps at once.
    """
    if share is not None and share.size != options.ahead:
        raise ConfigError(
            f"{share.size} processes were to share the steps of ahead={options.ahead}. Set ahead "
            "to the number of processes."
        )
    if options.strategy == "pdd" and options.ahead > 1:
        write_ahead(predict, canvas, hidden_places(canvas, options), options.ahead, share)
    elif options.strategy == "pdd":
        _pdd(predict, canvas, options)
    elif options.strategy == "semi_block":
        _semi_block(predict, canvas, options)
    else:
        _settle(predict, canvas, options, canvas.open, list(range(len(canvas.lengths))))


def hidden_places(canvas: Canvas, options: DiffusionOptions) -> list[Marks]:
    """Draw the places that `pdd` hides in each of its steps.

    Args:
        canvas: What is written.
        options: Steps, ratios and diversity.
    """
    rows = list(range(len(canvas.lengths)))
    return [_hidden(canvas, rows, options, step) for step in range(options.num_steps)]


def _pdd(predict: Predict, canvas: Canvas, options: DiffusionOptions) -> None:
    active = list(range(len(canvas.lengths)))
    for step in range(options.num_steps):
        hidden = _hidden(canvas, active, options, step)
        changed = canvas.write(
            predict,
            active,
            hidden,
            _temperature(options, step),
            alike=step == 0 and _temperature(options, step) == 0.0,
        )
        if options.early_stop and step > 0:
            active = [row for row, moved in zip(active, changed.tolist(), strict=True) if moved]
        if not active:
            break


def _hidden(
    canvas: Canvas, rows: Sequence[int], options: DiffusionOptions, step: int
) -> Bool[Tensor, "chosen candidates positions"]:
    hidden = _of(canvas.open, rows)
    if step == 0:
        return hidden
    return hidden & (canvas.uniform(rows) < _ratios(canvas, rows, options, step))


def _ratios(
    canvas: Canvas, rows: Sequence[int], options: DiffusionOptions, step: int
) -> Numbers | float:
    ratio = options.ratio(step)
    if options.diversity != "masks" or step > 1:
        return ratio
    drawn = canvas.uniform(rows)[:, :, :1]
    return _LEAST_KEPT + (1 - _LEAST_KEPT) * drawn


def _semi_block(predict: Predict, canvas: Canvas, options: DiffusionOptions) -> None:
    places = torch.arange(canvas.tokens.shape[2], device=canvas.tokens.device)
    active = list(range(len(canvas.lengths)))
    for start in range(1, canvas.tokens.shape[2], options.block_size):
        inside = (places >= start) & (places < start + options.block_size)
        active = [row for row in active if start < canvas.lengths[row]]
        if not active:
            break
        _settle(predict, canvas, options, canvas.open & inside, active)
        ended = ((canvas.tokens == canvas.pad_id) & canvas.open & inside).any(2)
        later = canvas.open & (places >= start + options.block_size) & ended[:, :, None]
        canvas.tokens.masked_fill_(later, canvas.pad_id)
        active = [row for row in active if not bool(ended[row].all())]


def _settle(
    predict: Predict,
    canvas: Canvas,
    options: DiffusionOptions,
    region: Marks,
    rows: Sequence[int],
) -> None:
    """Write a region, some places in each step, until none is left."""
    active = list(rows)
    for step in range(options.num_steps):
        left = region & (canvas.tokens == canvas.mask_id)
        active = [row for row in active if bool(left[row].any())]
        if not active:
            break
        hidden = _of(left, active)
        settle = _chooser(canvas, active, options, hidden, step)
        canvas.write(predict, active, hidden, _temperature(options, step), settle)


def _chooser(
    canvas: Canvas, rows: Sequence[int], options: DiffusionOptions, hidden: Marks, step: int
) -> Callable[[Numbers], Marks]:
    left = options.num_steps - step
    if options.strategy == "ancestral":
        drawn = canvas.uniform(rows)
        return lambda log_probs: hidden & (drawn < 1 / left)
    noise: Tensor | float = 0.0
    if options.gumbel > 0:
        noise = -options.gumbel * (-canvas.uniform(rows).clamp(min=1e-20).log()).log()
    random = canvas.uniform(rows) if options.diversity == "masks" and step == 0 else None
    budget = -(-hidden.sum(-1) // left)

    def surest(log_probs: Numbers) -> Marks:
        score = log_probs + noise if random is None else random
        score = score.masked_fill(~hidden, -torch.inf)
        order = torch.sort(score, dim=-1, descending=True, stable=True).indices
        rank = torch.empty_like(order).scatter_(
            -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
        )
        return hidden & (rank < budget[..., None])

    return surest


def _temperature(options: DiffusionOptions, step: int) -> float:
    if step == 0 and options.diversity == "sample":
        return options.temperature or 1.0
    return options.temperature


def _of(marks: Marks, rows: Sequence[int]) -> Bool[Tensor, "chosen candidates positions"]:
    return marks[torch.tensor(list(rows), device=marks.device)]

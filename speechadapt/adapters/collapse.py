"""Routed skills whose mixture hangs on no utterance, as the one LoRA they are."""

from __future__ import annotations

import torch

from speechadapt.adapters.attach import build, install
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.lowrank import LowRank
from speechadapt.adapters.methods.lora import LoraAdapter, LoraConfig
from speechadapt.adapters.methods.mhr import MhrAdapter, fixed_factors
from speechadapt.core.errors import ConfigError


def collapse(handle: Handle, name: str, task: str | None = None) -> Handle:
    """Attach the LoRA that equals routed skills mixed once and for all.

    Mixing is linear in each factor, so mean skills (`routing=mean`, MHR-mu) and those of one task
    are one product of the same rank, which merges into the base and takes a skill's room.

    Args:
        handle: An attachment of the method `mhr`, with routing by `task` or `mean`.
        name: What to call the LoRA.
        task: The task, where routing is by task.

    Returns:
        The LoRA, installed and not yet active.

    Raises:
        ConfigError: The attachment is of another method, or mixes anew for every utterance, or
            there is no such task.
    """
    adapters = handle.module.adapters()
    if not all(isinstance(one, MhrAdapter) for one in adapters):
        raise ConfigError(
            f"'{handle.name}' was to become one LoRA, but is of the method "
            f"'{handle.method_name}', which has no skills. Name an attachment of mhr."
        )
    with torch.no_grad():
        factors = [fixed_factors(one, task) for one in adapters]
    config = LoraConfig(rank=handle.config.rank, alpha=handle.config.alpha)
    roles = [site.role for site in handle.sites]
    merged = build(handle.encoder, "lora", name=name, config=config, roles=roles)
    merged.roles = handle.roles
    with torch.no_grad():
        for adapter, (down, up) in zip(merged.module.adapters(), factors, strict=True):
            assert isinstance(adapter, LoraAdapter)
            assert isinstance(adapter.change, LowRank)  # mhr stands at linear maps alone
            adapter.change.down.copy_(down)
            adapter.change.up.copy_(up)
    merged.module.eval()
    install(merged, activate=False)
    return merged

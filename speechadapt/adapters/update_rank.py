"""The rank that an attachment's change of the frozen weights has, measured."""

from __future__ import annotations

import torch

from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import ConfigError


@torch.no_grad()
def update_ranks(handle: Handle) -> dict[str, int]:
    """Return the rank of the change at each site, by role.

    The change is seen as the matrix `[out, in * kernel]`. Singular values below the rounding of
    float32 do not count.

    Args:
        handle: An attachment whose method merges.

    Raises:
        ConfigError: The method does not merge.
    """
    delta = handle.method.weight_delta
    if delta is None:
        raise ConfigError(
            f"the rank of the change of '{handle.name}' was asked for, but {handle.method_name} "
            "changes more than weights can hold. Choose a method that merges, such as lora."
        )
    adapters = handle.module.by_role()
    found = {}
    for site in handle.sites:
        module = handle.encoder.model.get_submodule(site.write)
        change = delta(adapters[site.role], module).weight.flatten(1).float()
        found[site.role] = int(torch.linalg.matrix_rank(change))
    return found

"""What a file holds of an attachment, where that is less than its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import CheckpointError


def file_tensors(handle: Handle) -> dict[str, Tensor]:
    """Return what a file holds of an attachment: its tensors, or what its method packs them into.

    Args:
        handle: The attachment.
    """
    pack = handle.method.pack
    if pack is None:
        return handle.module.tensors()
    by_role, whole = handle.module.by_role(), _others(handle, handle.module.tensors())
    return whole | {
        f"{site.role}:{key}": tensor
        for site in handle.sites
        for key, tensor in pack(by_role[site.role]).items()
    }


def unpacked(
    handle: Handle, tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fill the adapters whose method packs them, and return what is still to be filled.

    Args:
        handle: The attachment.
        tensors: What the file holds.
        path: The file, for messages.

    Returns:
        The attachment's other tensors, and what the file holds of them.

    Raises:
        CheckpointError: What is packed does not fit.
    """
    unpack = handle.method.unpack
    if unpack is None:
        return handle.module.tensors(), dict(tensors)
    by_role = handle.module.by_role()
    for site in handle.sites:
        start = f"{site.role}:"
        own = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
        try:
            unpack(by_role[site.role], own)
        except CheckpointError as error:
            raise CheckpointError(
                f"'{path}' should hold a packed adapter of the method '{handle.method_name}' at "
                f"'{site.role}', but: {error} Save it again."
            ) from error
    return _others(handle, handle.module.tensors()), _others(handle, tensors)


def _others(handle: Handle, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    sites = {site.role for site in handle.sites}
    return {key: one for key, one in tensors.items() if key.rpartition(":")[0] not in sites}

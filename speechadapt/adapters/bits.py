"""Small whole numbers packed into bytes, the first of them in the lowest bits."""

from __future__ import annotations

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

BYTE = 8


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that hold `count` numbers of `bits` each: the last one may be part empty."""
    return -(-count * bits // BYTE)


def pack_bits(codes: Integer[Tensor, " count"], bits: int) -> UInt8[Tensor, " bytes"]:
    """Put numbers side by side, 8 / bits of them in a byte; what is left of the last is zero.

    Args:
        codes: From 0 to 2 ** bits - 1.
        bits: 1, 2, 4 or 8.
    """
    size = packed_bytes(codes.numel(), bits)
    each = BYTE // bits
    whole = torch.zeros(size * each, dtype=torch.int64, device=codes.device)
    whole[: codes.numel()] = codes
    shifts = bits * torch.arange(each, device=codes.device)
    return (whole.reshape(size, each) << shifts).sum(1).to(torch.uint8)


def unpack_bits(
    packed: UInt8[Tensor, " bytes"], bits: int, count: int
) -> Integer[Tensor, " count"]:
    """Return the numbers that `pack_bits` put side by side.

    Args:
        packed: Its result.
        bits: Of one number.
        count: How many there are.
    """
    shifts = bits * torch.arange(BYTE // bits, device=packed.device)
    codes: Tensor = (packed.long()[:, None] >> shifts) & (2**bits - 1)
    return codes.flatten()[:count]

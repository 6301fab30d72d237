from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.bits import pack_bits, packed_bytes, unpack_bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 33])
def test_numbers_come_back_to_the_last_one(bits: int, count: int) -> None:
    codes = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(count))
    codes[-1] = 2**bits - 1
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_bytes(count, bits)
    assert len(packed) - count * bits / 8 < 1
    assert torch.equal(unpack_bits(packed, bits, count), codes)


def test_the_first_number_has_the_lowest_bits() -> None:
    assert pack_bits(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1]), 1).tolist() == [1, 1]
    assert pack_bits(torch.tensor([3, 0, 1]), 2).tolist() == [0b010011]
    assert pack_bits(torch.tensor([5, 10]), 4).tolist() == [0xA5]

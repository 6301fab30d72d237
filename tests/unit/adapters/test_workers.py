from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed

from speechadapt.adapters.workers import exchange, hosted, owned, shares
from speechadapt.core.errors import ConfigError
from tests.processes import in_processes


def test_one_process_stands_for_all_workers_and_divides_its_rows_in_order() -> None:
    assert hosted(3) == range(3)
    assert shares(6, 3) == [(0, slice(0, 2)), (1, slice(2, 4)), (2, slice(4, 6))]
    assert shares(4, 3) == [(0, slice(0, 1)), (1, slice(1, 2)), (2, slice(2, 4))]


@pytest.mark.parametrize("rows", range(1, 9))
def test_every_row_is_in_one_share(rows: int) -> None:
    found = [row for _, span in shares(rows, 4) for row in range(rows)[span]]
    assert found == list(range(rows))
    assert all(span.stop > span.start for _, span in shares(rows, 4))


def test_only_the_owner_of_a_part_gets_a_gradient() -> None:
    parts = torch.randn(3, 2, 4, requires_grad=True)
    seen = owned(parts, 1)
    assert torch.equal(seen, parts)
    seen.square().sum().backward()
    assert torch.equal(parts.grad[1], 2 * parts[1])
    assert not parts.grad[[0, 2]].any()


def test_alone_there_is_nothing_to_exchange() -> None:
    parts = torch.randn(3, 2)
    before = parts.clone()
    assert exchange(parts) == 0
    assert torch.equal(parts, before)


def _meet(rank: int) -> dict[str, object]:
    parts = torch.full((4, 2, 3), -1.0)
    parts[hosted(4).start : hosted(4).stop] = torch.arange(12.0).reshape(2, 2, 3) + 100 * rank
    sent = exchange(parts)
    try:
        hosted(3)
    except ConfigError as error:
        refused = str(error)
    return {
        "hosted": list(hosted(4)),
        "shares": [worker for worker, _ in shares(4, 4)],
        "parts": parts,
        "sent": sent,
        "refused": refused,
        "size": distributed.get_world_size(),
    }


def test_processes_stand_for_workers_of_their_own_and_tell_each_other_their_parts(
    tmp_path: Path,
) -> None:
    first, second = in_processes(_meet, tmp_path)
    assert (first["size"], first["hosted"], second["hosted"]) == (2, [0, 1], [2, 3])
    assert (first["shares"], second["shares"]) == ([0, 1], [2, 3])
    expected = torch.arange(12.0).reshape(2, 2, 3)
    for found in (first, second):
        assert torch.equal(found["parts"], torch.cat([expected, expected + 100]))
        assert found["sent"] == 2 * 2 * 3 * 4
        assert "3 workers were to be divided among 2 processes" in found["refused"]

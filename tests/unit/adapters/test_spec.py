from __future__ import annotations

import torch

from speechadapt.adapters.catalog import method
from speechadapt.adapters.spec import Adapter, Context


def test_an_adapter_that_does_nothing_passes_tensors_on_as_they_are():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    adapter = Adapter()
    assert adapter.enter(x, Context()) is x
    assert adapter.leave(x, y, Context()) is y
    assert not adapter.taps


def test_a_method_merges_where_it_can_name_its_change():
    assert method("lora").merges
    assert not method("parallel").merges

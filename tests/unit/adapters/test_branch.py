from __future__ import annotations

from dataclasses import replace

import torch

from speechadapt.adapters.branch import Branch

BRANCH = Branch("input", torch.zeros(2, 3), torch.zeros(4, 2), "relu")


def test_branches_of_one_kind_may_differ_in_width_and_in_what_they_hold():
    other = Branch("input", torch.ones(5, 3), torch.ones(4, 5), "relu", bias=torch.ones(5))
    assert other.kind == BRANCH.kind


def test_what_cannot_be_one_product_is_of_another_kind():
    norm = (torch.ones(3), torch.zeros(3))
    others = [
        replace(BRANCH, reads="output"),
        replace(BRANCH, bend="gelu"),
        replace(BRANCH, norm=norm),
        replace(BRANCH, norm=norm, epsilon=1e-6),
        replace(BRANCH, up=torch.zeros(6, 2)),
    ]
    assert len({one.kind for one in (BRANCH, *others)}) == 6

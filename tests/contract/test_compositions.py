"""Every kind of composition on every encoder family, found by discovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

import pytest
import torch
from torch import Tensor

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import Handle, attachment, attachments
from speechadapt.adapters.kinds import kind_names, kind_of, kind_title
from speechadapt.adapters.verify import verify
from speechadapt.encoders.catalog import families
from tests.contract import adapter_checks as checks
from tests.contract.adapter_checks import CLOSE, Case, move

PARTS = ("digits", "orders", "wake")
METHODS = ("lora", "parallel", "houlsby", "pfeiffer", "hydra_heads")

# Compositions with trained tensors of their own, each made of three adapters of a method.
LEARNED = {
    "attention": "fuse(digits, orders, wake, key_width=8, value_rank=2)",
    "full": "fuse(digits, orders, wake, key_width=0, value=full, value_penalty=0.01)",
    "gated": "fuse(digits, orders, wake, method=gated)",
    "utterance": "fuse(digits, orders, wake, method=gated, per=utterance)",
    "layer": "fuse(digits, orders, wake, method=gated, per=layer)",
}
FIXED = {
    "mean": "fuse(digits, orders, wake, method=mean)",
    "average": "average(digits: 0.5, orders: 0.2, wake: 0.3)",
}


@dataclass
class Composition(Case):
    """A composition of three adapters of one method, in the place of a method."""

    text: str = field(default="", kw_only=True)

    @property
    def adapts_norms(self) -> bool:
        return True  # norms are trained in the parts, never beside a composition

    @contextmanager
    def attached(self, moved: bool = False, **more: object) -> Iterator[Handle]:
        handles = parts_on(self, self.method)
        compose(self.encoder, self.text, name="german")
        handle = attachment(self.encoder, "german")
        for part in handles:
            part.module.requires_grad_(False)
        try:
            if moved:
                move(handle)
            yield handle
        finally:
            for name in list(attachments(self.encoder)):
                remove(self.encoder, name)


def parts_on(case: Case, method: str, encoder=None, names=PARTS) -> list[Handle]:
    """Attach adapters of one method under several names, each as after a training of its own."""
    handles = []
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        target = case.encoder if encoder is None else encoder
        handle = attach(target, method, name=name, config=method_of(method).tiny)
        with torch.no_grad():
            for tensor in handle.parameters():
                tensor += 0.05 * torch.randn(tensor.shape)
        handles.append(handle)
    return handles


@pytest.fixture
def case(request: pytest.FixtureRequest, make_case) -> Composition:
    family, method, text = request.param
    return Composition(**vars(make_case(method, family)), text=text)


LEARNED_CHECKS: tuple[Callable[[Case], None], ...] = (
    checks.training_moves_the_adapter_and_nothing_else,
    checks.removing_restores_the_base_bit_for_bit,
    checks.every_site_acts,
    checks.rows_do_not_mix,
    checks.each_row_gets_its_own_adapters,
    checks.padding_does_not_leak,
    checks.the_count_of_parameters_is_the_closed_form,
    checks.bfloat16_autocast_works,
    checks.checkpointing_gives_the_same_gradients,
)
FIXED_CHECKS = (
    checks.removing_restores_the_base_bit_for_bit,
    checks.every_site_acts,
    checks.rows_do_not_mix,
    checks.each_row_gets_its_own_adapters,
    checks.padding_does_not_leak,
    checks.the_count_of_parameters_is_the_closed_form,
)


def label(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(part.partition("(")[0] for part in value)
    return str(getattr(value, "__name__", value))


# Checks with many steps: what they ask of an encoder, the adapters of every family are asked too,
# so each composition is run on one family, and the families take turns.
SLOW_CHECKS = (
    checks.training_moves_the_adapter_and_nothing_else,
    checks.bfloat16_autocast_works,
    checks.checkpointing_gives_the_same_gradients,
)


def cases(texts: dict[str, str], some: tuple[Callable[[Case], None], ...]) -> list[object]:
    return [
        pytest.param((family, method, text), check, id=f"{name}-{family}-{check.__name__}")
        for turn, (name, text) in enumerate(texts.items())
        for number, family in enumerate(families())
        for method in [METHODS[(number + len(name)) % len(METHODS)]]
        for check in some
        if check not in SLOW_CHECKS or number == turn % len(families())
        # a handful of numbers for the whole encoder moves a random target by next to nothing
        if not (name == "layer" and "training_moves" in check.__name__)
    ]


@pytest.mark.parametrize(
    ("case", "check"),
    [*cases(LEARNED, LEARNED_CHECKS), *cases(FIXED, FIXED_CHECKS)],
    indirect=["case"],
)
def test_composition(case: Composition, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("text", [LEARNED["full"], LEARNED["gated"], LEARNED["layer"]])
@pytest.mark.parametrize("family", list(families()))
def test_every_tensor_of_a_fusion_gets_a_gradient(family: str, text: str, make_case) -> None:
    case = Composition(**vars(make_case("parallel", family)), text=text)
    checks.every_tensor_gets_a_gradient_within_two_steps(case)


@torch.no_grad()
def frames(case: Case, names: object) -> Tensor:
    with active(case.encoder, names):  # type: ignore[arg-type]
        return case.run()


@pytest.mark.parametrize(("method", "family"), list(zip(METHODS, cycle(families()))))
def test_fusing_changes_no_adapter_and_each_is_usable_alone(
    family: str, method: str, make_case
) -> None:
    case = make_case(method, family)
    handles = parts_on(case, method)
    for handle in handles:
        handle.module.requires_grad_(
            False
        )  # torch multiplies in another order where it may need to
    try:
        before = [
            {key: one.detach().clone() for key, one in handle.module.tensors().items()}
            for handle in handles
        ]
        alone = {name: frames(case, name) for name in PARTS}
        compose(case.encoder, "fuse(digits, orders, wake)", name="german")
        checks.train(case, attachment(case.encoder, "german"), 3)
        for handle, tensors in zip(handles, before, strict=True):
            after = handle.module.tensors()
            assert all(torch.equal(after[key], tensor) for key, tensor in tensors.items())
        for name in PARTS:
            assert torch.equal(frames(case, name), alone[name])
        mixed = frames(case, ["orders", "german", None])
        whole = frames(case, "german")
        close = CLOSE * float(whole.abs().max())
        torch.testing.assert_close(mixed[0], alone["orders"][0], rtol=0, atol=close)
        torch.testing.assert_close(mixed[1], whole[1], rtol=0, atol=close)
        assert torch.equal(mixed[2], frames(case, None)[2])
    finally:
        for name in list(attachments(case.encoder)):
            remove(case.encoder, name)


@pytest.mark.parametrize("name", kind_names())
def test_a_kind_says_what_it_is(name: str) -> None:
    assert kind_of(name).source.startswith("https://")
    assert kind_title(name)
    assert len(kind_title(name)) <= 100


@pytest.mark.parametrize("family", list(families()))
def test_verify_finds_a_composition_sound(family: str, make_case) -> None:
    case = make_case("lora", family)
    parts_on(case, "lora")
    try:
        compose(case.encoder, "fuse(digits, orders)", name="german")
        report = verify(case.encoder, "german", case.clips)
        assert report.sound
        assert report.acts
    finally:
        for name in list(attachments(case.encoder)):
            remove(case.encoder, name)

"""What every adapter method promises on every encoder, as functions of one case.

`test_adapters.py` runs them over all methods and families; other tests run them over a method from
outside the package, or over planted defects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.condition import rows_of
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.merge import merge, unmerge
from speechadapt.adapters.packed import file_tensors
from speechadapt.adapters.second_attention import RECORDING
from speechadapt.adapters.verify import verify
from speechadapt.core.errors import CheckpointError, SiteError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site

CLOSE = 1e-5  # float32; sums over 32 channels in two layers, in another order
MOVED = 0.05  # standard deviation of what "trained" tensors are moved by


@dataclass
class Case:
    """One method on one encoder.

    Args:
        method: A name of the catalogue.
        encoder: Shared by the session; every check leaves it as it was.
        fresh: Another encoder from the same files.
        other: An encoder of the same family with other weights.
        clips: What the batch was made from.
        scratch: A folder to write to.
        batch: Features and lengths of the clips; made from them where not given. No check may
            write to them.
    """

    method: str
    encoder: Encoder
    fresh: Encoder
    other: Encoder
    clips: list[Tensor]
    scratch: Path
    batch: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        self.batch = self.batch or self.encoder.extract(self.clips)

    def attach(self, encoder: Encoder | None = None, **more: object) -> Handle:
        """Attach the method with its small settings, from a fixed seed."""
        torch.manual_seed(0)
        found = method_of(self.method)
        options = {"name": "german", "config": found.tiny, **more}
        encoder = self.encoder if encoder is None else encoder
        return attach(encoder, self.method, **options)  # type: ignore[arg-type]

    @property
    def conditions(self) -> dict[str, object]:
        """What the method is told about the rows of the batch; empty where it asks for nothing."""
        example = method_of(self.method).example
        return {} if example is None else dict(example(len(self.clips), self.encoder.dim))

    def together(self, last: int) -> list[int]:
        """Return the rows up to one that act on it: those of its recording, or it alone."""
        names = self.conditions.get(RECORDING)
        if not isinstance(names, list):
            return [last]
        return [row for row in range(last + 1) if names[row] == names[last]]

    @property
    def adapts_norms(self) -> bool:
        """Whether the method stands at norms itself, so that none can be trained beside it.

        The encoder's output is its closing norm.
        """
        roles = [role.removesuffix("?") for role in method_of(self.method).roles]
        sites = [site for role in roles for site in self._sites(role)]
        return any(".norm." in site.role or site.role == "encoder" for site in sites)

    def _sites(self, role: str) -> list[Site]:
        try:
            return self.encoder.select([role])
        except SiteError:
            return []

    @contextmanager
    def attached(self, moved: bool = False, **more: object) -> Iterator[Handle]:
        """Attach, if asked with tensors as after training, and remove again."""
        if self.adapts_norms:
            more["train_norms"] = "none"
        handle = self.attach(**more)
        try:
            if moved:
                move(handle)
            with active(self.encoder, "german", self.conditions):
                yield handle
        finally:
            remove(self.encoder, "german")

    def run(self, encoder: Encoder | None = None) -> Tensor:
        """Encode the batch; frames past a clip's end are set to zero."""
        encoder = self.encoder if encoder is None else encoder
        frames, valid = encoder(*self.batch)
        return frames * _mask(frames, valid)

    @torch.no_grad()
    def output(self, names: object = "german", encoder: Encoder | None = None) -> Tensor:
        """Encode the batch with these adapters, without gradients."""
        encoder = self.encoder if encoder is None else encoder
        with active(encoder, names, self.conditions):  # type: ignore[arg-type]
            return self.run(encoder)


def move(handle: Handle, size: float = MOVED) -> None:
    """Change every trainable tensor, so that nothing is at its start any more."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def train(case: Case, handle: Handle, steps: int) -> tuple[list[float], dict[str, bool]]:
    """Take some steps towards a fixed target; return the losses and which tensors got gradients."""
    target = torch.randn(case.run().shape, generator=torch.Generator().manual_seed(2))
    optimiser = torch.optim.Adam(handle.parameters(), lr=1e-2)
    losses, reached = [], dict.fromkeys((key for key, _ in handle.named_parameters()), False)
    for step in range(steps):
        optimiser.zero_grad()
        loss = (case.run() - target).square().mean()
        penalty = handle.penalty()
        (loss if penalty is None else loss + penalty).backward()
        for key, parameter in handle.named_parameters():
            gradient = parameter.grad
            reached[key] |= gradient is not None and bool(gradient.abs().sum() > 0)
        optimiser.step()
        handle.after_step(step + 1)
        losses.append(float(loss.detach()))
    return losses, reached


def starts_as_it_says(case: Case) -> None:
    base = case.output(None)
    with case.attached() as handle:
        same = torch.equal(case.output(), base)
    assert same == handle.method.starts_as_identity


def starts_as_identity_with_trained_norms(case: Case) -> None:
    if case.adapts_norms:
        return
    base = case.output(None)
    with case.attached(train_norms="all") as handle:
        assert handle.norm_sites
        if handle.method.starts_as_identity:
            assert torch.equal(case.output(), base)
        move(handle, 0.5)
        assert not torch.equal(case.output(), base)


def training_moves_the_adapter_and_nothing_else(case: Case) -> None:
    model = case.encoder.model
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with case.attached() as handle:
        losses, _ = train(case, handle, 5)
        assert losses[-1] < 0.9995 * losses[0]
        assert all(one.grad is None and not one.requires_grad for one in model.parameters())
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def every_tensor_gets_a_gradient_within_two_steps(case: Case) -> None:
    with case.attached() as handle:
        _, reached = train(case, handle, 2)
    assert [key for key, hit in reached.items() if not hit] == []


def removing_restores_the_base_bit_for_bit(case: Case) -> None:
    base = case.output(None)
    with case.attached(moved=True, train_norms="adapted"):
        on, off = case.output(), case.output(None)
    assert not torch.allclose(on, base, atol=1e-4)
    assert torch.equal(off, base)
    with torch.no_grad():
        assert torch.equal(case.run(), base)
    modules = case.encoder.modules()
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in modules)


def every_site_acts(case: Case) -> None:
    with case.attached(moved=True):
        report = verify(case.encoder, "german", case.clips, case.conditions)
    assert report.sound
    assert report.acts
    assert report.silent == ()


def merging_keeps_the_output(case: Case) -> None:
    with case.attached(moved=True, train_norms="all") as handle:
        if not handle.method.merges:
            return
        base, on = case.output(None), case.output()
        merge(case.encoder, "german")
        merged = case.output()
        torch.testing.assert_close(merged, on, rtol=0, atol=CLOSE * float(on.abs().max()))
        merge(case.encoder, "german")
        assert torch.equal(case.output(), merged)
        assert torch.equal(case.output(None), merged)
        unmerge(case.encoder, "german")
        assert torch.equal(case.output(None), base)
        merge(case.encoder, "german")
    assert torch.equal(case.output(None), base)


def rows_do_not_mix(case: Case) -> None:
    features, lengths = case.batch
    with case.attached(moved=True):
        whole = case.output()
        features = features.clone()
        features[1] = features[1].flip(-1) * 0.5
        with torch.no_grad():
            frames, valid = case.encoder(features, lengths)
        changed = frames * _mask(frames, valid)
    for row in (0, 2):
        torch.testing.assert_close(changed[row], whole[row], rtol=0, atol=CLOSE)
    assert not torch.allclose(changed[1], whole[1], atol=1e-3)


def each_row_gets_its_own_adapters(case: Case) -> None:
    with case.attached(moved=True):
        off, on = case.output(None), case.output()
        mixed = case.output(["german", None, "german"])
    assert torch.equal(mixed[1], off[1])
    for row in (0, 2):
        torch.testing.assert_close(mixed[row], on[row], rtol=0, atol=CLOSE * float(on.abs().max()))
    assert not torch.allclose(mixed[0], off[0], atol=1e-4)


def padding_does_not_leak(case: Case) -> None:
    encoder = case.encoder
    if not encoder.masks_padding:
        return
    features, lengths = case.batch
    axis = 2 if encoder.family == "whisper" else 1
    past = torch.arange(features.shape[axis])[None, :] >= lengths[:, None]
    past = past.unsqueeze(1 if axis == 2 else 2)
    garbage = torch.where(past, torch.full_like(features, 37.0), features)
    with case.attached(moved=True):
        clean = case.output()
        with torch.no_grad():
            frames, valid = encoder(garbage, lengths)
            dirty = frames * _mask(frames, valid)
            rows = case.together(2)
            with active(encoder, "german", rows_of(case.conditions, rows)):
                alone, counts = encoder.encode([case.clips[row] for row in rows])
    torch.testing.assert_close(dirty, clean, rtol=0, atol=CLOSE * float(clean.abs().max()))
    count = int(counts[-1])
    torch.testing.assert_close(
        alone[-1, :count], clean[2, :count], rtol=0, atol=CLOSE * float(clean.abs().max())
    )


def a_saved_adapter_gives_the_same_output_on_a_fresh_encoder(case: Case) -> None:
    with case.attached(moved=True, train_norms="all") as handle:
        on = case.output()
        store.save(handle, case.scratch / "saved")
        own = file_tensors(handle)
    written = load_file(case.scratch / "saved" / store.WEIGHTS)
    assert written.keys() == own.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in own.items())
    loaded = store.load(case.fresh, case.scratch / "saved", name="german")
    try:
        assert torch.equal(case.output("german", case.fresh), on)
        assert loaded.config == handle.config
        assert loaded.roles == handle.roles
    finally:
        remove(case.fresh, "german")


def a_wrong_base_is_refused(case: Case) -> None:
    with case.attached() as handle:
        store.save(handle, case.scratch / "mine")
    with pytest.raises(CheckpointError, match="was trained on"):
        store.load(case.other, case.scratch / "mine")
    assert not case.other.followers
    assert not any(one._forward_hooks for one in case.other.modules())


def the_count_of_parameters_is_the_closed_form(case: Case) -> None:
    for norms in ("none", "all"):
        with case.attached(train_norms=norms) as handle:
            assert handle.num_parameters() == handle.expected_parameters()


def bfloat16_autocast_works(case: Case) -> None:
    with case.attached(moved=True) as handle:
        exact = case.output()
        with torch.autocast("cpu", torch.bfloat16):
            rough = case.run()
        rough.float().square().mean().backward()
        assert all(one.dtype == torch.float32 for one in handle.parameters())
        gradients = [one.grad for one in handle.parameters()]
        assert all(one is not None and bool(one.isfinite().all()) for one in gradients)
    # 8 bits of mantissa through two layers of large random weights
    error = (rough.detach().float() - exact).norm() / exact.norm()
    assert float(error) < 0.2


def checkpointing_gives_the_same_gradients(
    case: Case, reentrant: tuple[bool, ...] = (False, True)
) -> None:
    model = case.encoder.model
    with case.attached(moved=True, train_norms="all") as handle:
        model.train()
        try:
            plain = _gradients(case, handle)
            for kind in reentrant:
                model.activation_checkpointing_enable({"use_reentrant": kind})
                again = _gradients(case, handle)
                for key, gradient in plain.items():
                    torch.testing.assert_close(again[key], gradient, rtol=1e-4, atol=1e-6, msg=key)
        finally:
            model.activation_checkpointing_disable()
            model.eval()


def _gradients(case: Case, handle: Handle) -> dict[str, Tensor]:
    handle.module.zero_grad()
    torch.manual_seed(3)  # dropout of the base
    with active(case.encoder, ["german", None, "german"], case.conditions):
        loss = case.run().square().mean()
    loss.backward()  # outside of the selection, where another one is in force
    return {key: one.grad.clone() for key, one in handle.named_parameters() if one.grad is not None}


def _mask(frames: Tensor, valid: Tensor) -> Tensor:
    return (torch.arange(frames.shape[1])[None] < valid[:, None])[:, :, None]


CHECKS: tuple[Callable[[Case], None], ...] = (
    starts_as_it_says,
    starts_as_identity_with_trained_norms,
    training_moves_the_adapter_and_nothing_else,
    every_tensor_gets_a_gradient_within_two_steps,
    removing_restores_the_base_bit_for_bit,
    every_site_acts,
    merging_keeps_the_output,
    rows_do_not_mix,
    each_row_gets_its_own_adapters,
    padding_does_not_leak,
    a_saved_adapter_gives_the_same_output_on_a_fresh_encoder,
    a_wrong_base_is_refused,
    the_count_of_parameters_is_the_closed_form,
    bfloat16_autocast_works,
    checkpointing_gives_the_same_gradients,
)

# checks that the way of padding clips has a part in; the others are run with one way alone
PADDED_CHECKS = (
    starts_as_it_says,
    rows_do_not_mix,
    each_row_gets_its_own_adapters,
    a_saved_adapter_gives_the_same_output_on_a_fresh_encoder,
)

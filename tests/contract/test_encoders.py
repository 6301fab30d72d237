"""What every encoder family promises, found by discovery: a new family is tested by being there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import families, family_module, load_encoder
from speechadapt.encoders.sites import Site

NATIVE = ("whisper",)  # families that encode otherwise at native length
CASES = [*((family, "full") for family in families()), *((family, "native") for family in NATIVE)]
SECOND = 16000


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def encoder(request: pytest.FixtureRequest, tiny_folder) -> Encoder:
    family, padding = request.param
    return load_encoder(tiny_folder(family), padding=padding)


@pytest.fixture
def clips(signal) -> list[Tensor]:
    samples = (SECOND, 30017, 5431, 160, 24000)
    return [signal(count, seed) for seed, count in enumerate(samples)]


@torch.no_grad()
def encode(encoder: Encoder, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    return encoder.encode(clips)


@contextmanager
def hooked(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_input(
    encoder: Encoder, path: str, act: Callable[[Tensor], Tensor | None]
) -> torch.utils.hooks.RemovableHandle:
    """Call `act` on the states that enter a module, given by position or by keyword."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        states = args[0] if args else kwargs["hidden_states"]
        new = act(states)
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    return encoder.model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)


def on_write(
    encoder: Encoder, site: Site, act: Callable[[Tensor], Tensor | None]
) -> torch.utils.hooks.RemovableHandle:
    """Call `act` on what a site writes; a tensor it returns takes that place."""
    if site.writes_input:
        return on_input(encoder, site.write, act)
    module = encoder.model.get_submodule(site.write)
    return module.register_forward_hook(lambda module, args, output: act(output))


def test_the_suite_covers_native_length_wherever_it_matters(tiny_folder, clips):
    differing = []
    for family in families():
        full, native = (load_encoder(tiny_folder(family), padding=p) for p in ("full", "native"))
        if not torch.equal(
            encode(full, clips[2:3])[0][:, :1], encode(native, clips[2:3])[0][:, :1]
        ):
            differing.append(family)
    assert tuple(differing) == NATIVE


def test_every_site_resolves_to_the_class_it_promises(encoder):
    for site in encoder.sites.values():
        written = encoder.model.get_submodule(site.write)
        assert type(written).__name__ == site.kind, site
        for path in filter(None, (site.read, site.tap)):
            encoder.model.get_submodule(path)


def test_every_site_has_the_widths_it_promises(encoder, clips):
    seen: dict[str, tuple[int, int]] = {}
    for role, site in encoder.sites.items():
        channels_first = "conv" in site.kind.lower() and "." in role and site.kind != "Linear"
        axis = 1 if channels_first and site.kind.startswith("Conv") else -1
        widths: list[int] = []
        handles = [
            on_input(encoder, site.read, lambda x, w=widths, a=axis: w.append(x.shape[a])),
            on_write(encoder, site, lambda x, w=widths, a=axis: w.append(x.shape[a])),
        ]
        with hooked(handles):
            encode(encoder, clips[:1])
        seen[role] = (widths[0], widths[-1])
    assert seen == {role: (site.dim_in, site.dim_out) for role, site in encoder.sites.items()}


def test_every_convolution_is_built_as_its_site_says(encoder):
    for site in encoder.sites.values():
        module = encoder.model.get_submodule(site.write)
        assert (site.conv is not None) == isinstance(module, nn.Conv1d | nn.Conv2d), site
        if site.conv is None:
            continue
        time = (module.kernel_size[-1], module.stride[-1], module.padding[-1], module.groups)
        assert time == (site.conv.kernel, site.conv.stride, site.conv.padding, site.conv.groups)
        frequency = (module.kernel_size[0], module.stride[0])
        assert site.conv.across == (frequency if isinstance(module, nn.Conv2d) else None)


def test_a_grid_counts_every_token(encoder, clips):
    counted: list[int] = []
    grids = {site.grid for site in encoder.sites.values() if site.conv is None}
    assert len(grids) == 1
    grid = grids.pop()
    with hooked(
        [
            on_input(
                encoder,
                "layers.0" if encoder.family != "w2v_bert" else "encoder.layers.0",
                lambda x: counted.append(x.shape[1]),
            )
        ]
    ):
        encode(encoder, clips[:1])
    assert (grid is None) == (encoder.family != "ast")
    if grid is not None:
        assert grid.specials + grid.rows * grid.columns == counted[0]


def test_the_mask_of_the_residual_stream_marks_the_valid_positions(encoder, clips):
    """Its shape is that of what a layer takes, and its rows count what the encoder calls valid."""
    states: list[Tensor] = []
    with hooked([on_input(encoder, encoder.site("layer.0.end").read, states.append)]):
        _, lengths = encode(encoder, clips)
    mask = encoder.residual_mask(*encoder.extract(clips))
    assert (mask is not None) == encoder.masks_padding
    if mask is not None:
        assert mask.shape == states[0].shape[:2]
        assert torch.equal(mask.sum(1), lengths)
        assert torch.equal(mask, mask.sort(1, descending=True).values)


def test_every_site_is_live(encoder, clips):
    pair = clips[2:4]
    frames, _ = encode(encoder, pair)
    dead = []
    for role, site in encoder.sites.items():
        with hooked([on_write(encoder, site, torch.zeros_like)]):
            changed, _ = encode(encoder, pair)
        if torch.allclose(changed, frames, atol=1e-4):
            dead.append(role)
    assert not dead


def test_every_read_point_is_live(encoder, clips):
    pair = clips[2:4]
    frames, _ = encode(encoder, pair)
    dead = []
    for role, site in encoder.sites.items():
        with hooked([on_input(encoder, site.read, torch.zeros_like)]):
            changed, _ = encode(encoder, pair)
        if torch.allclose(changed, frames, atol=1e-4):
            dead.append(role)
    assert not dead


def test_sites_stand_in_the_order_of_the_computation(encoder, clips):
    order: list[str] = []
    handles = [
        on_write(encoder, site, lambda x, role=role: order.append(role))
        for role, site in encoder.sites.items()
    ]
    with hooked(handles):
        encode(encoder, clips[:1])
    assert order == list(encoder.sites)


def test_taps_and_branch_scales_describe_the_residual_stream(encoder, clips):
    """Each branch adds branch_scale times what its site writes to what its tap sees."""
    streams: list[tuple[str, Tensor]] = []
    branches: list[tuple[float, Tensor]] = []
    handles = []
    for role, site in encoder.sites.items():
        if site.tap is not None:
            scale = site.branch_scale
            handles.append(on_input(encoder, site.tap, lambda x, r=role: streams.append((r, x))))
            handles.append(on_write(encoder, site, lambda x, s=scale: branches.append((s, x))))
        elif role.endswith(".end"):
            handles.append(on_write(encoder, site, lambda x, r=role: streams.append((r, x))))
    with hooked(handles):
        encode(encoder, clips)
    layers = sum(role.endswith(".end") for role in encoder.sites)
    taps = len(branches) // layers
    assert taps >= 2
    for layer in range(layers):
        stream = streams[layer * (taps + 1) : (layer + 1) * (taps + 1)]
        for index, (scale, written) in enumerate(branches[layer * taps : (layer + 1) * taps]):
            torch.testing.assert_close(
                stream[index + 1][1], stream[index][1] + scale * written, rtol=0, atol=1e-5
            )


def test_every_linear_map_of_a_layer_has_a_role(encoder):
    written = {site.write for site in encoder.sites.values()}
    maps = (nn.Linear, nn.Conv1d)
    missing = [
        path
        for path, module in encoder.model.named_modules()
        if isinstance(module, maps) and "layers." in path and path not in written
    ]
    assert not missing


def test_output_equals_the_transformers_model_with_its_own_extractor(encoder, tiny_folder, clips):
    if (encoder.family, getattr(encoder, "padding", None)) == ("whisper", "native"):
        return  # differs on purpose; tests/unit/encoders/test_whisper.py states how
    folder = tiny_folder(encoder.family)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    reference = model.get_encoder() if model.config.is_encoder_decoder else model
    for clip in (clips[0], clips[1], clips[4]):
        inputs = extractor(clip.numpy(), sampling_rate=SECOND, return_tensors="pt")
        with torch.no_grad():
            states = reference(**inputs).last_hidden_state
        if encoder.family == "ast":
            bands, steps = encoder.grid
            patches = torch.stack(
                [states[:, 2 + f * steps : 2 + (f + 1) * steps] for f in range(bands)]
            )
            states = patches.mean(dim=0)
        frames, lengths = encode(encoder, [clip])
        valid = int(lengths)
        torch.testing.assert_close(frames[:, :valid], states[:, :valid], rtol=0, atol=1e-5)


def test_a_batch_equals_its_singles(encoder, clips):
    frames, lengths = encode(encoder, clips)
    for row, clip in enumerate(clips):
        alone, count = encode(encoder, [clip])
        valid = int(lengths[row])
        assert int(count) == valid
        torch.testing.assert_close(frames[row, :valid], alone[0, :valid], rtol=0, atol=1e-5)


def test_what_stands_in_the_padding_never_changes_a_valid_frame(encoder, clips):
    if not encoder.masks_padding:
        assert encoder.window_s is not None  # every row is padded to one window: nothing to vary
        return
    features, lengths = encoder.extract(clips)
    time_axis = 2 if encoder.family == "whisper" else 1
    steps = torch.arange(features.shape[time_axis])
    past = steps[None, :] >= lengths[:, None]
    past = past.unsqueeze(1 if time_axis == 2 else 2)
    garbage = torch.where(past, torch.full_like(features, 37.0), features)
    assert bool(past.any())
    with torch.no_grad():
        clean, valid = encoder(features, lengths)
        dirty, _ = encoder(garbage, lengths)
    for row, count in enumerate(valid.tolist()):
        torch.testing.assert_close(dirty[row, :count], clean[row, :count], rtol=0, atol=1e-5)


def test_lengths_rise_with_the_clips_and_lie_inside_the_frames(encoder, signal):
    samples = list(range(0, 2 * SECOND + 1, 1777))
    frames, lengths = encode(encoder, [signal(count) for count in samples])
    counts = lengths.tolist()
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] <= frames.shape[1]
    assert counts[-1] > counts[0]


def test_the_claimed_frame_rate_is_the_measured_one(encoder, signal):
    _, lengths = encode(encoder, [signal(int(0.6 * SECOND)), signal(int(1.8 * SECOND))])
    grown = int(lengths[1] - lengths[0])
    assert abs(grown - 1.2 * encoder.frame_rate) <= 1
    assert abs(int(lengths[1]) - 1.8 * encoder.frame_rate) <= 2


def test_frames_are_as_wide_as_claimed(encoder, clips):
    frames, _ = encode(encoder, clips)
    assert frames.shape[0] == len(clips)
    assert frames.shape[2] == encoder.dim


@pytest.mark.parametrize("samples", [1, 160, 399, 400])
def test_inputs_of_10_ms_and_less_work(encoder, signal, samples):
    frames, lengths = encode(encoder, [signal(samples), torch.zeros(samples)])
    assert lengths.tolist() == [1, 1]
    assert bool(frames.isfinite().all())


def test_clips_longer_than_the_window_are_refused_with_both_lengths(encoder, signal):
    if encoder.window_s is None:
        encode(encoder, [signal(3 * SECOND)])
        return
    with pytest.raises(Exception, match=r"lasts 2\.500 s .* window is 2\.000 s"):
        encode(encoder, [signal(int(2.5 * SECOND))])


def test_freeze_stops_every_gradient_and_leaves_training_mode(encoder):
    assert encoder.freeze() is encoder
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())


def test_state_dict_keys_are_those_of_transformers(encoder, tiny_folder):
    model = AutoModel.from_pretrained(tiny_folder(encoder.family))
    reference = model.get_encoder() if model.config.is_encoder_decoder else model
    expected = {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in encoder.model.state_dict().items()}
    assert found == expected


def test_encoding_leaves_the_weights_alone(encoder, clips):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encode(encoder, clips)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_half_precision_weights_give_finite_frames(encoder, tiny_folder, clips):
    padding = getattr(encoder, "padding", "full")
    half = load_encoder(tiny_folder(encoder.family), padding=padding, dtype="bfloat16")
    frames, _ = encode(half, clips)
    assert frames.dtype == torch.bfloat16
    assert bool(frames.isfinite().all())


def test_the_source_names_folder_and_fingerprint(encoder, tiny_folder):
    assert encoder.source.name == str(tiny_folder(encoder.family))
    assert encoder.source.revision == "local"
    assert len(encoder.source.fingerprint) == 64


def test_legacy_names_lead_to_roles_the_encoder_has(encoder):
    names = family_module(encoder.family).legacy_names()
    roles = {role.replace("<i>", "0") for role in names.values()}
    assert roles <= set(encoder.sites)
    assert len(roles) == len(names)
    linear = {role for role, site in encoder.sites.items() if site.kind == "Linear"}
    maps = {role for role in linear if role.startswith("layer.0.") and role.count(".") == 3}
    assert maps <= roles

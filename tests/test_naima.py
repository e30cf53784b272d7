"""NAIMA: the authors' numbers, the same output by every way of attention, any size, and that it learns."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

pytest.importorskip("transformers")

from crispdepth.convert import convert
from crispdepth.data.scenes import scenes
from crispdepth.degradation import downsample
from crispdepth.layers.attention import exact, fused, linear, linear_error
from crispdepth.layers.blocks import KERNELS
from crispdepth.losses import sobel
from crispdepth.models.catalog import WEIGHTS, load
from crispdepth.models.naima import SHARP, Naima, NaimaConfig, TokenAttention, _spectrum, _windows, from_released
from crispdepth.models.naima_released import UNUSED
from crispdepth.training import task
from crispdepth.training.examples import Batch, source
from crispdepth.training.recipes import NaimaRecipe, TokensRecipe
from crispdepth.training.recipes import find as find_recipe
from crispdepth.training.run import train
from crispdepth.training.supervised import NaimaTask
from crispdepth.types import InputError

PARITY = Path(os.environ.get("CRISPDEPTH_PARITY", Path(__file__).resolve().parents[2] / "shared" / "parity"))
SMALL = NaimaConfig(
    scale=4,
    width=4,
    encoder=1,
    upsampler=1,
    token_channels=12,
    token_blocks=4,
    token_heads=2,
    grid=4,
    layers=(0, 1, 2, 3),
    circle=True,  # the released phases jump at ±π, so that rounding decides: no two ways would agree
)
PARAMETERS = {4: 62_844_341, 8: 81_692_597, 16: 141_854_645}

FILLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sign": lambda n: np.where(n >= 0, 1, -1),
    "gain": lambda n: 1 + 0.1 * n,
    "prelu": lambda n: 0.25 + 0.05 * n,
    "triangular": lambda n: 0.3 * n / np.sqrt(n.shape[0]),
    "weight": lambda n: n / np.sqrt(np.prod(n.shape[1:])),
    "small": lambda n: 0.02 * n,
}


def generator(words: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(words.encode())))


def filled(key: str, shape: list[int], kind: str) -> torch.Tensor:
    """The fixture's tensor called ``key``."""
    dice = generator(f"dev-{key}")
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "permutation":
        return torch.eye(shape[0])[torch.from_numpy(dice.permutation(shape[0]))]
    if kind == "alpha":
        return torch.full(shape, 0.5)
    made = FILLINGS[kind](dice.standard_normal(shape, dtype=np.float32))
    return torch.from_numpy(np.asarray(made, dtype=np.float32))


@cache
def layout(scale: int) -> dict[str, dict]:
    """Every tensor of the authors' checkpoint: its shape and kind."""
    path = PARITY / f"naima_x{scale}_keys.json"
    if not path.is_file():
        pytest.skip(f"no parity fixture at {PARITY} (set CRISPDEPTH_PARITY)")
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def checkpoint(scale: int) -> dict[str, torch.Tensor]:
    return {key: filled(key, row["shape"], row["kind"]) for key, row in layout(scale).items()}


@cache
def released(scale: int) -> Naima:
    return from_released(checkpoint(scale), scale)


def fixture_inputs(scale: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    dice = generator(f"dev-input-{height}x{width}-x{scale}")
    rgb = dice.standard_normal((1, 3, height, width), dtype=np.float32)
    return torch.from_numpy(rgb), torch.from_numpy(dice.random((1, 1, height // scale, width // scale), np.float32))


def expected(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(PARITY / "naima_expected.npz")[name])


def off(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((made - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("width", [112, 224])
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_output_is_the_released_codes(scale: int, width: int) -> None:
    layout(scale)
    with torch.inference_mode():
        made = released(scale).network(*fixture_inputs(scale, 112, width))
    assert off(made, expected(f"x{scale}_112x{width}")) < 1e-5


def test_amplitude_and_phase_are_fused_as_released() -> None:
    tensors = dict(checkpoint(8))
    for key, row in layout(8).items():
        if row["kind"] == "zero":
            tensors[key] = filled(key, row["shape"], "weight")
    dice = generator("dev-sdb-0")
    depth, rgb = (torch.from_numpy(dice.standard_normal((1, 48, 16, 24), dtype=np.float32)) for _ in range(2))
    with torch.inference_mode():
        made = from_released(tensors, 8).bridge1.frequency(depth, rgb)
    assert off(made, expected("sdb_bridge1_x8_16x24")) < 1e-5


@pytest.mark.parametrize("scale", PARAMETERS)
def test_parameters_are_counted_as_published_and_none_is_lost(scale: int) -> None:
    sizes = {k: int(np.prod(row["shape"])) for k, row in layout(scale).items()}
    buffers = {k for k in sizes if k.endswith((".invconv.p", ".invconv.sign_s"))}
    assert sum(sizes[k] for k in buffers) == 196_848
    assert sum(size for k, size in sizes.items() if k not in buffers) == PARAMETERS[scale]
    # ours: without the tensors no forward pass uses; of the LU factors, one matrix instead of two and a diagonal
    dropped = buffers | {k for k in sizes if UNUSED.search(k) or k.endswith((".invconv.u", ".invconv.log_s"))}
    ours = sum(p.numel() for p in released(scale).parameters())
    assert ours == sum(size for k, size in sizes.items() if k not in dropped)


@pytest.mark.parametrize("attention", ["exact", "linear"])
def test_every_attention_gives_the_released_output(attention: str) -> None:
    network = from_released(checkpoint(8), 8, attention)
    with torch.inference_mode():
        assert off(network.network(*fixture_inputs(8, 112, 112)), expected("x8_112x112")) < 1e-5


def test_a_wrapped_checkpoint_is_read_and_a_wrong_one_named() -> None:
    tensors = checkpoint(4)
    wrapped = {"epoch": 3, "model": {f"module.{k}": v for k, v in tensors.items()}}
    assert from_released(wrapped, 4).config == released(4).config
    with pytest.raises(InputError, match=r"1 tensors are left over in the checkpoint: spare\.weight"):
        from_released({**tensors, "spare.weight": torch.zeros(1)}, 4)
    with pytest.raises(InputError, match=r"missing from the checkpoint: conv_rgb\.bias"):
        from_released({k: v for k, v in tensors.items() if k != "conv_rgb.bias"}, 4)
    with pytest.raises(InputError, match=r"missing from the checkpoint: bridge2\.spa_process\.0\.invconv\.u"):
        from_released({k: v for k, v in tensors.items() if k != "bridge2.spa_process.0.invconv.u"}, 4)
    with pytest.raises(InputError, match="another shape"):
        from_released({**tensors, "conv_rgb.bias": torch.zeros(7)}, 4)
    with pytest.raises(InputError, match="not for x8"):
        from_released(tensors, 8)
    with pytest.raises(InputError, match="no checkpoint of NAIMA"):
        from_released({"weight": torch.zeros(1)}, 8)


def rows(count: int, channels: int, seed: int) -> torch.Tensor:
    return torch.randn(2, count, channels, generator=torch.Generator().manual_seed(seed))


def test_fused_attention_is_the_one_that_holds_all_weights() -> None:
    q, k, v = rows(70, 6, 1), rows(50, 6, 2), rows(50, 3, 3)
    torch.testing.assert_close(fused(q, k, v, 0.4), exact(q, k, v, 0.4))


@pytest.mark.parametrize("together", [0.0, 3.0])
def test_linear_attention_is_within_its_bound_of_the_exact_one(together: float) -> None:
    q, k, v = F.normalize(rows(2100, 8, 1), dim=-1), F.normalize(rows(2100, 8, 2) + together, dim=-1), rows(2100, 3, 3)
    scale = 8**-0.5
    wanted = exact(q, k, v, scale)
    difference = (linear(q, k, v, scale) - wanted).abs().max()
    span = (v.amax(dim=1) - v.amin(dim=1)).max()
    assert difference < linear_error(q, k, scale) * span
    assert difference < 1e-3 * (wanted.amax() - wanted.amin())
    first = v.mean(dim=1, keepdim=True).expand_as(wanted)  # all weights alike
    assert difference < 0.02 * (first - wanted).abs().max()


@pytest.mark.parametrize("channels", [4, 12])
def test_attention_among_the_token_channels_is_the_papers(channels: int) -> None:
    torch.manual_seed(0)
    layer = TokenAttention(channels, replace(SMALL, attention="exact"))
    torch.nn.init.constant_(layer.alpha, 0.7)
    depth, tokens = torch.randn(2, channels, 5, 6), torch.randn(2, SMALL.width, 5, 6)
    q, k, v = (p(x).flatten(2) for p, x in ((layer.q_proj, depth), (layer.k_proj, tokens), (layer.v_proj, tokens)))
    weights = (F.normalize(q, dim=1).transpose(1, 2) @ F.normalize(k, dim=1) / channels**0.5).softmax(dim=-1)
    plain = depth + 0.7 * (v @ weights.transpose(1, 2)).unflatten(2, (5, 6))
    torch.testing.assert_close(layer(depth, tokens), plain)


def shuffled(config: NaimaConfig = SMALL) -> Naima:
    """A network in which the tokens matter."""
    torch.manual_seed(0)
    network = Naima(config).eval()
    for gta in (network.gta1, network.gta2, network.gta3, network.gta4):
        torch.nn.init.constant_(gta.attention.alpha, 0.5)
    return network


def inputs(height: int, width: int, scale: float = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sample = scenes(1, height, width, seed=5)
    assert sample.depth is not None
    assert sample.rgb is not None
    low, valid = downsample(sample.depth, torch.ones_like(sample.depth, dtype=torch.bool), scale)
    return low.clone(), valid.clone(), sample.rgb.clone()


@pytest.mark.parametrize("scale", KERNELS)
def test_each_scale_takes_any_size_and_ratio(scale: int) -> None:
    network = shuffled(replace(SMALL, scale=scale))
    for size, ratio in (((112, 112), scale), ((37, 51), 4), ((20, 70), 1), ((60, 45), 2.5)):
        with torch.inference_mode():
            depth = network(*inputs(*size, ratio))
        assert depth.shape == (1, 1, *size)
        assert depth.isfinite().all()


def test_where_nothing_is_padded_forward_is_the_network_in_metres() -> None:
    network = shuffled()
    low, valid, rgb = inputs(56, 84)
    bottom, span = low.min(), low.max() - low.min()
    with torch.inference_mode():
        made = network.network((rgb - network.mean) / network.deviation, (low - bottom) / span)
        torch.testing.assert_close(network(low, valid, rgb), made * span + bottom)


def test_a_padded_border_is_the_borders_own_values() -> None:
    network = shuffled()
    low, valid, rgb = inputs(48, 80)
    tall = F.pad(rgb, (0, 4, 0, 8), mode="replicate")
    more = F.pad(low, (0, 1, 0, 2), mode="replicate")
    with torch.inference_mode():
        whole = network(more, torch.ones_like(more, dtype=torch.bool), tall)
        torch.testing.assert_close(network(low, valid, rgb), whole[..., :48, :80])


def test_what_lies_in_a_hole_does_not_matter_and_a_flat_or_empty_map_is_kept() -> None:
    network = shuffled()
    low, valid, rgb = inputs(48, 56)
    valid[..., 3:6, 4:9] = False
    with torch.inference_mode():
        nan, zero = (network(torch.where(valid, low, value), valid, rgb) for value in (torch.nan, 0.0))
        torch.testing.assert_close(nan, zero, rtol=0, atol=0)
        torch.testing.assert_close(network(8 * low, valid, rgb), 8 * zero, rtol=1e-5, atol=0)
        flat = network(torch.full_like(low, 2.5), valid, rgb)
        torch.testing.assert_close(flat, torch.full_like(flat, 2.5))
        assert (network(low, torch.zeros_like(valid), rgb) == 0).all()


def test_one_map_without_a_reading_does_not_touch_the_other_of_the_batch() -> None:
    network = shuffled()
    low, valid, rgb = inputs(56, 56)
    two = [x.repeat(2, 1, 1, 1) for x in (low, valid, rgb)]
    two[1][1] = False
    with torch.inference_mode():
        depth = network(*two)
        torch.testing.assert_close(depth[:1], network(low, valid, rgb))
    assert (depth[1] == 0).all()


def test_real_bins_of_a_spectrum_have_phase_plus_pi_never_minus() -> None:
    x = torch.randn(1, 64, 6, 8, generator=torch.Generator().manual_seed(0))
    phase = _spectrum(x)[..., [0, 0, 3, 3], [0, 4, 0, 4]].angle()
    assert set(phase.flatten().tolist()) == {0.0, torch.tensor(torch.pi).item()}
    torch.testing.assert_close(_spectrum(x), torch.fft.rfft2(x))


def test_without_alpha_the_tokens_do_not_matter() -> None:
    torch.manual_seed(0)
    network = Naima(SMALL).eval()
    low, valid, rgb = inputs(56, 56)
    with torch.inference_mode():
        before = network(low, valid, rgb)
        for parameter in network.tokens.parameters():
            parameter.normal_()
        torch.testing.assert_close(network(low, valid, rgb), before, rtol=0, atol=0)


def test_tiles_cover_everything_and_give_nearly_the_whole_pictures_result() -> None:
    low, valid, rgb = inputs(224, 280)
    whole, tiled = shuffled(), shuffled(replace(SMALL, tile=168))
    with torch.inference_mode():
        a, b = whole(low, valid, rgb), tiled(low, valid, rgb)
        plain = F.interpolate(low, rgb.shape[-2:], mode="bicubic")
        assert (b - a).abs().mean() < 0.3 * (a - plain).abs().mean()
        small = [x[..., :20, :20] for x in (low, valid)]
        torch.testing.assert_close(tiled(*small, rgb[..., :80, :80]), whole(*small, rgb[..., :80, :80]))
    for length in (56, 168, 169 * 4, 1008):
        windows = _windows(length, 168, 28)
        assert windows[0][0] == 0
        assert windows[-1][0] + windows[-1][1] == length
        assert all(b[0] < a[0] + a[1] for a, b in itertools.pairwise(windows))
    with pytest.raises(InputError, match="112 pixels at least"):
        replace(SMALL, tile=64)


def test_a_temperature_of_1_is_as_released_and_it_starts_sharper() -> None:
    ours = shuffled(replace(SMALL, temperature=True))
    rest = ours.load_state_dict(shuffled().state_dict(), strict=False)
    assert len(rest.missing_keys) == 4
    assert not rest.unexpected_keys
    low, valid, rgb = inputs(56, 56)
    with torch.inference_mode():
        sharp = ours(low, valid, rgb)
        for gta in (ours.gta1, ours.gta2, ours.gta3, ours.gta4):
            learnt = gta.attention.log_sharpness
            assert learnt is not None
            torch.testing.assert_close(learnt.exp() * gta.attention.scale, torch.tensor(SHARP))
            learnt.zero_()
        torch.testing.assert_close(ours(low, valid, rgb), shuffled()(low, valid, rgb))
    assert not torch.allclose(sharp, shuffled()(low, valid, rgb))


def test_a_place_hears_its_own_token_unless_alpha_is_0() -> None:
    ours = shuffled(replace(SMALL, own=True))
    rest = ours.load_state_dict(shuffled().state_dict(), strict=False)
    assert sorted(rest.missing_keys) == [f"gta{i}.attention.own.weight" for i in (1, 2, 3, 4)]
    low, valid, rgb = inputs(56, 56)
    with torch.inference_mode():
        assert not torch.allclose(ours(low, valid, rgb), shuffled()(low, valid, rgb))
        plain = shuffled()
        for network in (ours, plain):
            for gta in (network.gta1, network.gta2, network.gta3, network.gta4):
                gta.attention.alpha.zero_()
        torch.testing.assert_close(ours(low, valid, rgb), plain(low, valid, rgb))


@pytest.mark.parametrize("size", [(56, 56), (64, 90)])
def test_a_folded_picture_gives_depth_of_the_same_size(size: tuple[int, int]) -> None:
    folded = shuffled(replace(SMALL, scale=2, stem=2))
    assert folded.config.ratio == 4
    low, valid, rgb = inputs(*size)
    with torch.inference_mode():
        assert folded(low, valid, rgb).shape[-2:] == size
        features = folded.conv_rgb.weight.shape[1]
    assert features == 12
    with pytest.raises(InputError, match="stem=0"):
        replace(SMALL, stem=0)


def test_the_rgb_branch_sees_the_enlarged_low_map_where_asked() -> None:
    ours, plain = shuffled(replace(SMALL, enlarged=True)), shuffled()
    weights = plain.state_dict()
    weights["conv_rgb.weight"] = F.pad(weights["conv_rgb.weight"], (0, 0, 0, 0, 0, 1))
    ours.load_state_dict(weights)
    low, valid, rgb = inputs(56, 56)
    standardised = (rgb - ours.mean) / ours.deviation
    small = (low - low.min()) / (low.max() - low.min())
    with torch.inference_mode():
        torch.testing.assert_close(ours(low, valid, rgb), plain(low, valid, rgb))
        ours.conv_rgb.weight[:, 3:] = 1
        seen = ours(low, valid, rgb)
        assert not torch.allclose(seen, plain(low, valid, rgb))
        torch.testing.assert_close(
            seen, ours.network(standardised, small) * (low.max() - low.min()) + low.min(), rtol=1e-4, atol=1e-4
        )


def test_a_calm_start_is_bicubic_and_lets_all_signals_through() -> None:
    """What an edge leaves in the features of the third bridge, which torch's own start nearly blots out."""
    torch.manual_seed(0)
    config = replace(SMALL, width=16, own=True, enlarged=True)
    own, calm = Naima(config).eval(), Naima(config).calmed().eval()
    rgb, low = torch.randn(1, 3, 56, 56), torch.rand(1, 1, 14, 14)
    left: dict[Naima, float] = {}
    for network in (own, calm):
        network.bridge3.frequency.register_forward_hook(
            lambda _, __, out, network=network: left.update({network: float(out.detach().std(dim=(2, 3)).mean())})
        )
        with torch.inference_mode():
            made = network.network(rgb, low)
    torch.testing.assert_close(made, F.interpolate(low, (56, 56), mode="bicubic"), rtol=0, atol=0)
    assert left[own] < 0.01
    assert 0.1 < left[calm] < 20
    calm.network(rgb, low).square().mean().backward()
    assert float(calm.upsampler.last.weight.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_a_position_embedding_of_its_own_grid_is_taken_as_it_is() -> None:
    rgb = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    wide = torch.randn(1, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    released_way, sized = (shuffled(replace(SMALL, sized=sized)).tokens for sized in (False, True))
    sized.load_state_dict(released_way.state_dict())
    for a, b in zip(released_way(rgb), sized(rgb), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.allclose(released_way(wide)[0], sized(wide)[0], atol=1e-5)
    plain = released_way.vit(rgb).last_hidden_state[:, 1:]  # as Transformers runs it
    torch.testing.assert_close(released_way(rgb)[-1].flatten(2).transpose(1, 2), plain)
    plain = sized.vit(wide).last_hidden_state[:, 1:]
    torch.testing.assert_close(sized(wide)[-1].flatten(2).transpose(1, 2), plain)


@pytest.mark.parametrize("circle", [False, True])
def test_gradients_reach_all_but_the_frozen_tokens(circle: bool) -> None:
    network = shuffled(replace(SMALL, circle=circle, temperature=True, padded=True)).train()
    network(*inputs(48, 56)).square().mean().backward()
    assert not network.tokens.vit.training
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (not name.startswith("tokens."))
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_saved_weights_come_back_the_same(tmp_path: Path) -> None:
    network = shuffled()
    network.save(tmp_path / "x.safetensors")
    again = Naima.from_file(tmp_path / "x.safetensors", attention="exact").eval()
    assert again.config == replace(SMALL, attention="exact")
    with torch.inference_mode():
        torch.testing.assert_close(again(*inputs(48, 56)), network(*inputs(48, 56)))
    with pytest.raises(InputError, match="missing"):
        Naima.from_file(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors at all")
    loaded = load(str(tmp_path / "x.safetensors"))  # as `predict --model x.safetensors` does
    with torch.inference_mode():
        torch.testing.assert_close(loaded(*inputs(48, 56)), network(*inputs(48, 56)))
    with pytest.raises(InputError, match="no safetensors file"):
        Naima.from_file(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 3}, "no scale 3"),
        ({"attention": "linaer"}, "did you mean linear"),
        ({"attention": "linear", "temperature": True}, "small logits"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **wrong)


def test_a_few_steps_of_training_lower_the_error() -> None:
    depth, rgb = torch.ones(1, 1, 56, 56), torch.full((1, 3, 56, 56), 0.3)
    depth[..., 20:, :] += 1
    rgb[..., 20:, :] += 0.3
    low, valid = downsample(depth, torch.ones_like(depth, dtype=torch.bool), 4)
    network = shuffled().train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = (network(low, valid, rgb) - depth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_authors_file_becomes_weights_for_predict(tmp_path: Path) -> None:
    layout(4)
    torch.save({"epoch": 1, "state_dict": checkpoint(4)}, tmp_path / "NAIMA x4.pth")
    lines = convert("naima", tmp_path / "NAIMA x4.pth", tmp_path / "naima_x4.safetensors")
    assert "x4" in lines[0]
    low, valid, rgb = inputs(45, 60)
    with torch.inference_mode():
        made, wanted = load(str(tmp_path / "naima_x4.safetensors"))(low, valid, rgb), released(4)(low, valid, rgb)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)  # another layout in memory, other rounding
    with pytest.raises(InputError, match="not for x8"):
        convert("naima", tmp_path / "NAIMA x4.pth", tmp_path / "y.safetensors", scale=8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["NAIMA x4.pth", "naima_x4.safetensors"]


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"nothing of the kind")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "damaged.pth").write_bytes(b"\x80\x02.")  # a pickle that ends before anything is in it
    torch.save({"bridge1.upBlock.conv_1.0.weight": torch.tensor(1.0)}, tmp_path / "scalar.pth")
    torch.save({"model": {"epoch": 3}}, tmp_path / "number.pth")
    out = tmp_path / "out.safetensors"
    for name, message in (
        ("x.pth", "no checkpoint of plain tensors"),
        ("other.pth", "no checkpoint of NAIMA"),
        ("list.pth", "not a state_dict"),
        ("damaged.pth", "no checkpoint of plain tensors"),
        ("scalar.pth", "no checkpoint of NAIMA"),
        ("number.pth", "epoch is no tensor"),
        ("none.pth", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            convert("naima", tmp_path / name, out)
    with pytest.raises(InputError, match="did you mean naima"):
        convert("naimaa", tmp_path / "x.pth", out)
    with pytest.raises(InputError, match=r"use one of \.safetensors"):
        convert("naima", tmp_path / "x.pth", tmp_path / "out.pth")
    assert not out.exists()


RECIPE = NaimaRecipe(
    network=replace(SMALL, any_scale=True, padded=True),
    patches=((1, 48),),
    steps=4,
    ramp=0,
    scales=(4.0, 8.0),
    distinct=2,
    learning_rate=1e-3,
    warmup=1,
    validate_every=4,
    checkpoint_every=2,
)


@pytest.fixture
def _small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "VALIDATION_SCENES", 1)
    monkeypatch.setattr(task, "VALIDATION_SIZE", (96, 128))
    task._validation_scenes.cache_clear()


@pytest.mark.usefixtures("_small_validation")
def test_tokens_that_learned_from_scenes_are_read_by_a_network_in_training(tmp_path: Path) -> None:
    pre = TokensRecipe(network=RECIPE.network, patches=((1, 48),), steps=3, validate_every=3, checkpoint_every=3)
    tokens = train(pre, tmp_path / "tokens", accelerator="cpu", workers=0)
    recipe = replace(RECIPE, tokens=str(tokens))
    network = NaimaTask(recipe, tmp_path).network
    kept = load_file(tokens)
    torch.testing.assert_close(network.tokens.vit.layernorm.bias.half(), kept["vit.layernorm.bias"], rtol=0, atol=0)
    whole = train(recipe, tmp_path / "run", accelerator="cpu", workers=0)
    weights = load_file(whole)
    assert torch.equal(weights["tokens.vit.layernorm.bias"].half(), kept["vit.layernorm.bias"])  # still frozen
    again = NaimaTask(replace(recipe, tokens=str(whole)), tmp_path).network
    assert torch.equal(again.tokens.vit.layernorm.bias, weights["tokens.vit.layernorm.bias"])
    assert float(weights["gta1.attention.alpha"].abs()) > 0
    gone_on = NaimaTask(replace(recipe, tokens="naima-small", start=str(whole)), tmp_path).network
    assert torch.equal(gone_on.tokens.vit.layernorm.bias, weights["tokens.vit.layernorm.bias"])  # its own, not those
    with pytest.raises(InputError, match="another shape"):
        NaimaTask(replace(recipe, network=replace(SMALL, token_channels=24)), tmp_path)
    with pytest.raises(InputError, match="no vision transformer"):
        NaimaTask(replace(recipe, tokens=str(tmp_path / "none.safetensors")), tmp_path)


def test_the_tokens_inside_the_package_are_read_by_name(tmp_path: Path) -> None:
    recipe = find_recipe("naima-small")
    assert isinstance(recipe, NaimaRecipe)
    assert recipe.tokens == "naima-small"
    kept = load_file(WEIGHTS / "naima-small.safetensors")["tokens.vit.layernorm.bias"].float()
    assert torch.equal(NaimaTask(recipe, tmp_path).network.tokens.vit.layernorm.bias, kept)


@pytest.mark.usefixtures("_small_validation")
def test_a_blind_network_never_hears_a_token(tmp_path: Path) -> None:
    weights = load_file(train(replace(RECIPE, blind=True, calm=True), tmp_path, accelerator="cpu", workers=0))
    assert all(float(weights[f"gta{i}.attention.alpha"]) == 0 for i in (1, 2, 3, 4))


@pytest.mark.usefixtures("_small_validation")
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(RECIPE, tmp_path / "whole", accelerator="cpu", workers=0)
    step = NaimaTask.training_step

    def killed(self: NaimaTask, batch: Batch, number: int) -> torch.Tensor:
        if self.global_step == 3:
            raise SystemExit("killed")
        return step(self, batch, number)

    monkeypatch.setattr(NaimaTask, "training_step", killed)
    with pytest.raises(SystemExit):
        train(RECIPE, tmp_path / "killed", accelerator="cpu", workers=0)
    monkeypatch.setattr(NaimaTask, "training_step", step)
    expected_weights = load_file(whole)
    again = load_file(train(RECIPE, tmp_path / "killed", accelerator="cpu", workers=0))
    for name, tensor in expected_weights.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("_small_validation")
def test_the_published_recipe_learns_from_nyus_own_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        dice = np.random.default_rng(0)
        file["images"] = dice.integers(0, 255, (2, 3, 64, 60), dtype=np.uint8)
        file["depths"] = dice.uniform(1, 4, (2, 64, 60)).astype(np.float32)
    published = find_recipe("naima_x8")
    assert isinstance(published, NaimaRecipe)
    assert published.network == NaimaConfig(scale=8, grid=32)
    short = replace(
        published, network=replace(SMALL, scale=8), tokens="", patches=((1, 64),), steps=2, validate_every=2
    )
    pictures = source("nyu", tmp_path, None, None)
    assert train(short, tmp_path / "run", accelerator="cpu", source=pictures, workers=0).is_file()


@pytest.mark.slow
def test_one_scene_can_be_learnt_by_heart() -> None:
    torch.manual_seed(0)
    network = Naima(replace(SMALL, width=8)).train()
    depth = torch.ones(1, 1, 42, 42)
    depth[..., 16:, 10:23], depth[..., :22, 30:] = 2, 3
    rgb = depth.expand(-1, 3, -1, -1) / 4 + 0.1 * torch.rand(1, 3, 42, 42)
    low, valid = (x.clone() for x in downsample(depth, torch.ones_like(depth, dtype=torch.bool), 4))
    optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), 2e-3)
    errors = [float((F.interpolate(low, (42, 42), mode="bicubic") - depth).square().mean().sqrt())]
    for _ in range(50):
        optimizer.zero_grad()
        wrong = (network(low, valid, rgb) - depth).square().mean().sqrt()
        wrong.backward()
        optimizer.step()
        errors.append(float(wrong.detach()))
    assert errors[-1] < 0.6 * errors[0], errors[::10]


def test_the_sobel_loss_counts_slopes_and_no_offset() -> None:
    across = torch.arange(6.0).expand(1, 1, 5, 6)
    assert float(sobel(across, across - 3)) == pytest.approx(0, abs=1e-6)
    assert float(sobel(across[..., 1:-1, 1:-1] * 0 + 1, across[..., 1:-1, 1:-1] * 0)) == pytest.approx(0)
    inner = sobel(across, torch.zeros_like(across))
    assert float(inner) == pytest.approx((8 * 4 + 4 * 2) / 6)  # half the slope at the two continued borders


def test_the_page_on_training_counts_the_largest_network() -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in Naima(NaimaConfig(scale=16)).parameters())
    page = " ".join((Path(__file__).parents[1] / "docs/train.md").read_text(encoding="utf-8").split())
    gigabytes = 4 * 4 * count / 1e9  # float32: itself, its gradient, two moments
    assert f"NAIMA x16, has {count / 1e6:.0f} million parameters, {gigabytes:.1f} GB with" in page

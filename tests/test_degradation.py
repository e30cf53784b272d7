"""Low maps against PIL and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.plain import pil_bicubic

from crispdepth.degradation import (
    KERNELS,
    add_noise,
    check_scale,
    crop_to_multiple,
    downsample,
    low_size,
    punch_holes,
    quantise,
)
from crispdepth.types import InputError


def levels(height: int = 64, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)
    return np.clip(blocks + rng.integers(-9, 10, blocks.shape), 0, 255).astype(np.uint8)


def tensors(array: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    depth = torch.from_numpy(array.astype(np.float32))[None, None]
    return depth, torch.ones_like(depth, dtype=torch.bool)


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_the_8_bit_kernel_is_pil_on_8_bit(scale: int) -> None:
    array = levels()
    ours, _ = downsample(*tensors(array), scale, "bicubic-8bit")
    expected = pil_bicubic(array, 64 // scale, 80 // scale)
    difference = np.abs(ours[0, 0].numpy() - expected)
    assert difference.max() <= 1  # PIL computes in fixed point: rare halves fall the other way
    assert (difference > 0).mean() < 0.02


def test_the_float_kernel_is_pil_on_floats() -> None:
    array = levels()
    ours, _ = downsample(*tensors(array), 8)
    np.testing.assert_allclose(ours[0, 0].numpy(), pil_bicubic(array.astype(np.float32), 8, 10), atol=1e-3)


def test_striding_takes_the_last_pixel_of_each_block() -> None:
    array = levels()
    ours, _ = downsample(*tensors(array), 4, "strided")
    np.testing.assert_array_equal(ours[0, 0].numpy(), array[3::4, 3::4])


def test_averaging_is_the_mean_of_each_block() -> None:
    array = levels()
    ours, _ = downsample(*tensors(array), 4, "average")
    expected = array.reshape(16, 4, 20, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(ours[0, 0].numpy(), expected, atol=1e-3)


def test_the_plain_kernel_looks_at_4_by_4_pixels_only() -> None:
    array = np.zeros((64, 80), dtype=np.uint8)
    array[:6] = 200  # x16: the centre of the first low pixel is row 7.5, its kernel rows 6..9
    ours, _ = downsample(*tensors(array), 16, "bicubic-plain")
    assert ours[0, 0, 0].abs().max() < 1e-4
    assert downsample(*tensors(array), 16, "bicubic")[0][0, 0, 0].min() > 50


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_flat_map_stays_flat(kernel: str) -> None:
    low, valid = downsample(*tensors(np.full((32, 48), 77, dtype=np.uint8)), 8, kernel)
    assert low.shape == (1, 1, 4, 6)
    assert valid.all()
    torch.testing.assert_close(low, torch.full((1, 1, 4, 6), 77.0))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_hole_stays_a_hole(kernel: str) -> None:
    depth, valid = tensors(levels())
    valid[..., :32, :32] = False
    a, low_valid = downsample(depth, valid, 8, kernel)
    b, _ = downsample(torch.where(valid, depth, torch.nan), valid, 8, kernel)
    assert torch.equal(a, b)
    assert not low_valid[..., :3, :3].any()
    assert low_valid[..., 5:, 5:].all()


def test_scales_need_not_be_whole() -> None:
    depth, valid = tensors(levels())
    assert downsample(depth, valid, 3.5)[0].shape[-2:] == low_size((64, 80), 3.5) == (18, 23)
    assert crop_to_multiple(depth, 3.5) is depth
    assert crop_to_multiple(depth, 7).shape[-2:] == (63, 77)
    with pytest.raises(ValueError, match="strided"):
        downsample(depth, valid, 3.5, "strided")
    with pytest.raises(ValueError, match="bicubic"):
        downsample(depth, valid, 4, "lanczos")


def test_noise_has_the_strength_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = torch.full((1, 1, 200, 200), 2.0)
    for power, expected in ((0.0, 0.01), (1.0, 0.02), (2.0, 0.04)):
        assert float((add_noise(depth, 0.01, generator, power) - depth).std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_about_the_share_asked_for_is_lost(share: float, radius: int) -> None:
    valid = torch.ones(1, 1, 300, 300, dtype=torch.bool)
    left = punch_holes(valid, share, torch.Generator().manual_seed(1), radius)
    assert float((~left).float().mean()) == pytest.approx(share, abs=0.03)


def test_steps_are_counted_between_readings() -> None:
    depth = torch.linspace(5, 6, 600).view(1, 1, 20, 30).clone()
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[..., :4, :4], depth[..., :4, :4] = False, 0
    assert len(quantise(depth, torch.full((1, 1, 1, 1), 63.0), valid)[valid].unique()) == 64
    with pytest.raises(InputError, match="no whole scale"):
        downsample(depth, valid, 2.5, "strided")
    for scale in (0, 65, float("nan")):
        with pytest.raises(InputError, match="out of range: 1 to 64"):
            check_scale(scale)
    with pytest.raises(InputError, match="take a smaller scale"):
        crop_to_multiple(depth, 32)

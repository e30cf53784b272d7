"""The filters against plain loops, and what they are for: edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.plain import joint_bilateral, pil_bicubic

from crispdepth.degradation import downsample
from crispdepth.geometry import resize, resize_rgb
from crispdepth.metrics import rmse
from crispdepth.models.catalog import CATALOG, DEFAULT, load, sharpeners
from crispdepth.models.classical import Bicubic, JointBilateral, JointBilateralConfig
from crispdepth.types import InputError

GUIDED = [name for name in sharpeners() if "rgb" in CATALOG[name].inputs]


def test_bicubic_is_pil() -> None:
    low = torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    ours = Bicubic()(low, torch.ones_like(low, dtype=torch.bool), (40, 33))
    np.testing.assert_allclose(ours[0, 0].numpy(), pil_bicubic(low[0, 0].numpy(), 40, 33), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 20), (13, 17)])
def test_joint_bilateral_equals_the_paper_pixel_by_pixel(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    low, rgb = torch.rand(1, 1, 4, 5, generator=generator) + 1, torch.rand(1, 3, *size, generator=generator)
    valid = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    config = JointBilateralConfig(sigma_low_px=0.9, sigma_colour=0.5, guided_rounds=0, plain_rounds=0)
    ours = JointBilateral(config).spread(low, rgb)[0, 0].numpy()
    guide = resize_rgb(rgb, (4, 5))[0].permute(1, 2, 0).numpy()
    image = rgb[0].permute(1, 2, 0).numpy()
    expected = joint_bilateral(low[0, 0].numpy(), valid[0, 0].numpy(), image, guide, (0.9, 0.5))
    np.testing.assert_allclose(ours, expected, rtol=5e-3)  # ours mixes in 1e-4 of the plain enlargement


def step_scene(scale: int) -> tuple[torch.Tensor, ...]:
    """A disc 1 m before a wall, seen by a clean colour picture."""
    v, u = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    disc = ((u - 60) ** 2 + (v - 45) ** 2 < 30**2)[None, None]
    depth = torch.where(disc, 1.0, 2.0)
    rgb = torch.where(disc, 0.8, 0.2).expand(1, 3, 96, 128).contiguous()
    low, valid = downsample(depth, torch.ones_like(disc), scale)
    return low, valid, rgb, depth


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_an_edge_seen_in_the_colours_comes_back_sharper_than_bicubic(name: str, scale: int) -> None:
    low, valid, rgb, depth = step_scene(scale)
    plain = Bicubic()(low, valid, (96, 128))
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    assert rmse(load(name)(low, valid, rgb), depth, everywhere) < 0.75 * rmse(plain, depth, everywhere)


@pytest.mark.parametrize("name", GUIDED)
def test_the_result_shrunk_again_is_the_measurement(name: str) -> None:
    low, valid, rgb, depth = step_scene(8)
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    plain = Bicubic()(low, valid, (96, 128))
    ours, theirs = (
        (resize(x, everywhere, (12, 16))[0] - low).abs().mean() for x in (load(name)(low, valid, rgb), plain)
    )
    assert ours < theirs


def test_the_default_is_in_the_catalog() -> None:
    assert load(DEFAULT).inputs == ("low", "rgb")


def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match="joint-bilateral"):
        load("bilateral")

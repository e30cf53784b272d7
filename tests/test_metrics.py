"""Every metric against a few lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crispdepth.metrics import (
    METRICS,
    absrel,
    confusion,
    delta1,
    delta2,
    delta3,
    edge_rmse,
    flying,
    log10,
    mad,
    mad_rounded,
    mean_iou,
    mse,
    rmse,
    rmse_log,
)


def random_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    prediction, target = (rng.uniform(0.5, 4, (3, 1, 20, 30)).astype(np.float32) for _ in range(2))
    valid = rng.uniform(size=target.shape) > 0.2
    return torch.from_numpy(prediction), torch.from_numpy(target), torch.from_numpy(valid)


def test_rounding_takes_what_is_less_than_half_a_level_and_no_more() -> None:
    target = torch.tensor([[[[10.0, 20.0, 255.0, 0.0]]]])
    prediction = target + torch.tensor([0.4, 0.6, 9.0, -3.0])
    everywhere = torch.ones_like(target, dtype=torch.bool)
    assert float(mad(prediction, target, everywhere)) == pytest.approx(3.25)
    assert float(mad_rounded(prediction, target, everywhere)) == pytest.approx(0.25)  # one level of one pixel


def test_the_plain_metrics_equal_numpy_image_by_image() -> None:
    prediction, target, valid = random_pair()
    for i in range(3):
        p, t = (x[i][valid[i]].numpy().astype(np.float64) for x in (prediction, target))
        assert float(rmse(prediction, target, valid)[i]) == pytest.approx(np.sqrt(np.mean((p - t) ** 2)))
        assert float(mse(prediction, target, valid)[i]) == pytest.approx(np.mean((p - t) ** 2))
        assert float(mad(prediction, target, valid)[i]) == pytest.approx(np.mean(np.abs(p - t)))
        assert float(absrel(prediction, target, valid)[i]) == pytest.approx(np.mean(np.abs(p - t) / t))
        ratio = np.maximum(p / t, t / p)
        for power, delta in enumerate((delta1, delta2, delta3), start=1):
            assert float(delta(prediction, target, valid)[i]) == pytest.approx(np.mean(ratio < 1.25**power))
        assert float(log10(prediction, target, valid)[i]) == pytest.approx(np.mean(np.abs(np.log10(p / t))), rel=1e-5)
        expected = np.sqrt(np.mean(np.log(p / t) ** 2))
        assert float(rmse_log(prediction, target, valid)[i]) == pytest.approx(expected, rel=1e-5)


def test_what_stands_in_a_hole_never_counts() -> None:
    prediction, target, valid = random_pair()
    poisoned = torch.where(valid, target, 1e9), torch.where(valid, prediction, -7.0)
    for name, metric in METRICS.items():
        a, b = metric(prediction, target, valid), metric(poisoned[1], poisoned[0], valid)
        torch.testing.assert_close(a, b, equal_nan=True, msg=name)


def test_an_image_without_readings_has_no_value() -> None:
    prediction, target, valid = random_pair()
    for name, metric in METRICS.items():
        assert metric(prediction, target, torch.zeros_like(valid)).isnan().all(), name


def step() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.full((1, 1, 20, 40), 1.0)
    target[..., 20:] = 2.0
    return target, torch.ones_like(target, dtype=torch.bool)


def test_edge_rmse_looks_at_3_pixels_beside_edges_only() -> None:
    target, valid = step()
    far_off, near = target.clone(), target.clone()
    far_off[..., :10] += 5
    near[..., 19] += 0.8  # one of 8 columns: the 2 of the edge and 3 more on each side
    assert float(edge_rmse(far_off, target, valid)) == 0
    assert float(edge_rmse(near, target, valid)) == pytest.approx(0.8 / np.sqrt(8))
    flat = torch.ones_like(target)
    assert edge_rmse(flat, flat, valid).isnan().all()


def test_flying_counts_pixels_in_the_air_and_not_shifted_edges() -> None:
    target, valid = step()
    blurred, shifted = target.clone(), target.clone()
    blurred[..., 19], blurred[..., 20] = 1.4, 1.6
    shifted[..., 20] = 1.0
    assert float(flying(blurred, target, valid)) == pytest.approx(2 / 8)
    assert float(flying(shifted, target, valid)) == 0
    assert float(flying(target, target, valid)) == 0


def test_mean_iou_equals_numpy_over_the_classes_that_are_there() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 5, (2, 2, 1, 9, 7)).astype(np.uint8)
    target[target == 3] = 255  # so class 3 is never true
    seen = target != 255
    expected = []
    for c in (0, 1, 2, 4):
        hit = ((prediction == c) & (target == c)).sum()
        expected.append(hit / (((prediction == c) & seen) | (target == c)).sum())
    table = confusion(torch.from_numpy(prediction), torch.from_numpy(target), 5)
    assert int(table.sum()) == seen.sum()
    assert mean_iou(table) == pytest.approx(np.mean(expected))
    assert np.isnan(mean_iou(torch.zeros(5, 5, dtype=torch.int64)))


def test_flying_looks_within_3_pixels_of_an_edge_and_at_the_middle_half() -> None:
    target = torch.where(torch.arange(24) < 12, 1.0, 2.0).expand(1, 1, 9, 24).clone()
    everywhere = torch.ones_like(target, dtype=torch.bool)

    def counts(column: int, value: float) -> bool:
        made = target.clone()
        made[..., column] = value
        return float(flying(made, target, everywhere)) > 0

    assert [column for column in range(24) if counts(column, 1.5)] == [9, 10, 11, 12, 13, 14]
    assert [value for value in (1.24, 1.26, 1.74, 1.76) if counts(11, value)] == [1.26, 1.74]

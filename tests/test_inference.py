"""predict: anything in, a Prediction out, and every mistake answered with its cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import crispdepth as cd
from crispdepth.inference import check_aspect, check_size
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Model, Sample

LOW = np.linspace(1, 2, 12 * 16, dtype=np.float32).reshape(12, 16)
RGB = np.random.default_rng(0).uniform(size=(48, 64, 3)).astype(np.float32)


def test_three_lines_sharpen_a_map(tmp_path: Path) -> None:
    model = cd.load("fgs")
    pred = cd.predict(model, low=LOW, rgb=RGB)
    cd.write_depth(tmp_path / "sharp.exr", pred.depth)
    assert pred.depth.shape == (48, 64)
    assert pred.depth.dtype == np.float32
    assert pred.valid.all()
    assert pred.unit == "m"
    assert str(pred) == f"Prediction(64x48, median {np.median(pred.depth):.4g} m, confidence)"
    np.testing.assert_array_equal(cd.read_depth(tmp_path / "sharp.exr").depth, pred.depth)


def test_arrays_tensors_and_files_give_the_same(tmp_path: Path, scene: Sample) -> None:
    low_mm = np.round(LOW * 1000).astype(np.uint16)
    rgb8 = np.round(RGB * 255).astype(np.uint8)
    from PIL import Image

    Image.fromarray(low_mm).save(tmp_path / "low.png")
    Image.fromarray(rgb8).save(tmp_path / "rgb.png")
    expected = cd.predict("fgs", low=low_mm, rgb=rgb8, unit="mm").depth
    tensor = torch.from_numpy(low_mm.astype(np.float32))[None, None]
    rgb_tensor = torch.from_numpy(rgb8.transpose(2, 0, 1).copy())[None]
    ways: list[dict[str, Any]] = [
        {"low": tmp_path / "low.png", "rgb": str(tmp_path / "rgb.png")},
        {"low": tensor, "rgb": rgb_tensor},
        {"low": low_mm[:, :, None], "rgb": rgb8 / np.float64(255)},
        {"low": low_mm.astype(np.int32), "rgb": rgb8.astype(np.uint16) * 257},
        {"low": low_mm.astype(">u2"), "rgb": (rgb8.astype(np.uint16) * 257).astype(">u2")},
    ]
    for way in ways:
        np.testing.assert_allclose(cd.predict("fgs", **way, unit="mm").depth, expected, rtol=1e-5)


def test_a_hole_is_never_read_and_is_marked() -> None:
    holed, poisoned = LOW.copy(), LOW.copy()
    holed[3:6, 4:9] = 0
    poisoned[3:6, 4:9] = 1e6
    valid = np.ones(LOW.shape, dtype=bool)
    valid[3:6, 4:9] = False
    a = cd.predict("fgs", low=holed, rgb=RGB)
    b = cd.predict("fgs", low=poisoned, rgb=RGB, valid=valid)
    c = cd.predict("fgs", low=np.where(valid, LOW, np.nan), rgb=RGB, valid=valid)
    np.testing.assert_array_equal(a.depth, b.depth)
    np.testing.assert_array_equal(a.depth, c.depth)
    assert not a.valid[12:24, 16:36].any()
    assert a.valid[:12].all()
    assert a.valid[24:].all()


def test_relative_values_come_back_as_they_were_and_zero_is_one_of_them() -> None:
    levels = np.round((LOW - 1) * 255).astype(np.uint8)
    pred = cd.predict("bicubic", low=levels, unit="relative", size=(12, 16))
    np.testing.assert_allclose(pred.depth, levels, atol=1e-3)
    assert pred.unit == "relative"
    assert pred.valid.all()
    assert not cd.predict("bicubic", low=levels, unit="disparity", size=(12, 16)).valid[0, 0]


def test_nan_is_a_hole_where_that_is_said(tmp_path: Path) -> None:
    low = np.full((12, 16), 2.0, np.float32)
    low[3, 4] = np.nan
    np.save(tmp_path / "low.npy", low)
    for given in (low, tmp_path / "low.npy"):
        with pytest.raises(InputError, match=r"nan_holes=True"):
            cd.predict("bicubic", low=given, size=(24, 32))
        made = cd.predict("bicubic", low=given, size=(24, 32), nan_holes=True)
        assert np.isfinite(made.depth).all()
        assert not made.valid[7, 9]


def test_a_grey_picture_is_a_picture() -> None:
    low, grey = np.full((12, 16), 2.0, np.float32), np.random.default_rng(0).random((48, 64), np.float32)
    made = [cd.predict("fgs", low=low, rgb=x).depth for x in (grey, torch.from_numpy(grey), np.stack([grey] * 3, -1))]
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_a_model_without_colours_needs_a_size_or_a_picture() -> None:
    assert cd.predict("bicubic", low=LOW, size=(30, 40)).depth.shape == (30, 40)
    assert cd.predict("bicubic", low=LOW, rgb=RGB).depth.shape == (48, 64)
    assert cd.predict("fgs", low=LOW, rgb=RGB, size=(24, 32)).depth.shape == (24, 32)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"low": None}, "--low"),
        ({"low": LOW, "rgb": None}, "--rgb"),
        ({"low": LOW, "rgb": None, "size": (48, 64)}, "--model bicubic"),
        ({"low": LOW * 0}, "all are holes"),
        ({"low": LOW, "valid": LOW < 0}, "no reading"),
        ({"low": LOW, "valid": np.ones((3, 3), dtype=bool)}, "must match"),
        ({"low": np.where(LOW > 1.5, np.nan, LOW)}, "NaN or inf"),
        ({"low": np.where(LOW > 1.5, np.inf, LOW)}, "NaN or inf"),
        ({"low": LOW, "rgb": np.where(RGB > 0.5, np.nan, RGB)}, "NaN or inf"),
        ({"low": (LOW * 1000).astype(np.uint16)}, "mm"),
        ({"low": LOW, "unit": "feet"}, "unknown unit"),
        ({"low": LOW, "rgb": RGB * 255}, "scale them to 0..1"),
        ({"low": LOW, "rgb": RGB[..., :2]}, r"\(height, width, 3\)"),
        ({"low": LOW[None, None, None, 0]}, r"must be \(height, width\)|differ in shape"),
        ({"low": LOW.astype(complex)}, "must hold numbers"),
        ({"low": LOW.T}, "turned by 90"),
        ({"low": LOW[:6]}, "crop them to the same view"),
        ({"low": "no such file.png", "unit": "mm"}, "no such file"),
        ({"low": LOW, "size": (10**6, 10**6)}, "ask for less"),
        ({"low": LOW, "size": (0, 5)}, "is empty"),
        ({"low": LOW, "size": 48}, "height, width"),
        ({"low": LOW, "size": (40, 40)}, r"size 40x40 .*has another shape .*: ask for 53x40"),
        ({"low": LOW, "rgb": None, "model": "ctkt", "size": (40, 40)}, "ask for 53x40"),
        ({"low": LOW, "rgb": None, "model": "ctkt", "size": (320, 240)}, "size 240x320 .*ask for 320x240"),
        ({"model": "fsg"}, "did you mean fgs"),
        ({"model": "naima_x8.pth"}, "crispdepth convert"),
        ({"model": __file__}, "holds no weights"),
    ],
)
def test_a_mistake_is_answered_with_its_cure(arguments: dict[str, Any], cure: str) -> None:
    merged = {"model": "fgs", "low": LOW, "rgb": RGB, **arguments}
    with pytest.raises(InputError, match=cure) as caught:
        cd.predict(**merged)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "option", "word"),
    [
        ({"low": (LOW * 1000).astype(np.uint16)}, "--unit", "unit"),
        ({"low": LOW, "unit": "sunrgbd"}, "--unit", "unit"),
        ({"rgb": None, "size": None}, "--rgb", "rgb"),
        ({"model": "bicubic", "rgb": None}, "--rgb", "rgb"),
        ({"size": (10**6, 10**6)}, "--size", "size"),
        ({"focal_px": 500}, "--focal", "focal_px"),
        ({"min_confidence": 1}, "--min-confidence", "min_confidence"),
        ({"confidence_max": 100}, "--confidence-max", "confidence_max"),
        ({"confidence": np.full_like(LOW, 1), "min_confidence": 9}, "--min-confidence 9", "min_confidence"),
        ({"confidence": np.full_like(LOW, 1), "confidence_max": -1}, "--confidence-max -1", "confidence_max"),
        ({"confidence": np.full_like(LOW, 7)}, "--confidence-max 100", "confidence_max"),
    ],
)
def test_a_message_speaks_python_beside_the_command(arguments: dict[str, Any], option: str, word: str) -> None:
    with pytest.raises(InputError, match=rf"{option}\b[^()]*\({word}="):
        cd.predict(**{"model": "fgs", "low": LOW, "rgb": RGB, **arguments})


def test_shapes_may_differ_by_a_low_pixel_of_rounding_only() -> None:
    check_aspect((46, 52), (370, 413))  # Middlebury at x8
    check_aspect((192, 256), (1440, 1920))
    check_aspect((375, 1242), (375, 1242))
    with pytest.raises(InputError):
        check_aspect((192, 256), (1080, 1920))


def test_a_huge_result_is_refused_before_it_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("crisp")
    check_size((1440, 1920), model, (192, 256))
    with pytest.raises(InputError, match="is 10000 megapixels, above the limit of 67"):
        check_size((100_000, 100_000), model, (1000, 1000))
    monkeypatch.setattr(type(model), "bytes_per_pixel", 2**30)
    with pytest.raises(InputError, match=r"size 200x200 needs about 40000\.0 GiB and this machine has"):
        check_size((200, 200), model, (100, 100))
    with pytest.raises(InputError, match=r"ask for less with --size \(size=…\)$"):
        check_size((12288, 16384), model, (192, 256))  # in tiles, but beyond every limit


def test_what_is_moved_is_depth_with_its_error_and_confidence() -> None:
    """--align moves the result: its error and confidence stay with the depth they are of."""
    there = np.roll(RGB, (1, -3), (0, 1))
    plain = cd.predict("crisp-tiny", low=LOW, rgb=there)
    fitted = cd.predict("crisp-tiny", low=LOW, rgb=RGB, align="auto", shift=(3, -1))
    inner = np.s_[8:-8, 8:-8]
    for name, bound in {"depth": 0.01, "error": 0.05, "confidence": 0.05}.items():  # unmoved: 0.09, 0.32, 0.24
        one, other = getattr(fitted, name), np.roll(getattr(plain, name), (-1, 3), (0, 1))
        assert np.median(np.abs(one - other)[inner]) < bound * np.std(other[inner]), name


def test_nobody_is_sure_of_a_hole_in_a_flat_map() -> None:
    flat = np.full((24, 32), 1.5, np.float32)
    flat[6:18, 8:24] = 0
    rgb = np.random.default_rng(1).random((96, 128, 3)).astype(np.float32)
    for name in ("crisp-tiny", "ctkt"):
        made = cd.predict(name, low=flat, rgb=rgb, unit="m")
        assert made.confidence is not None
        assert made.error is None or made.error[48, 64] > 0.05
        assert made.confidence[48, 64] < 0.3 < 0.9 < made.confidence[4, 4]


def test_where_a_moved_result_has_nothing_from_nothing_is_trusted() -> None:
    for name in ("crisp-tiny", "guided"):
        made = cd.predict(name, low=LOW, rgb=RGB, align="auto", shift=(3, 5))
        assert made.confidence is not None
        assert not made.valid[:5].any()
        assert not made.confidence[:5].any()
        assert not made.confidence[:, :3].any()
        assert made.error is None or bool((made.error[:5] >= made.depth[:5] - 1e-6).all())


def test_hard_edges_of_relative_depth_know_no_zero() -> None:
    low = np.where(np.arange(16) < 8, 1.0, 3.0)[None].repeat(12, 0).astype(np.float32) + LOW / 20
    plain = cd.predict("ctkt", low=low, size=(48, 64), unit="relative").depth
    made = [cd.predict("ctkt", low=low + x, size=(48, 64), unit="relative", hard_edges=True).depth for x in (0, 500)]
    assert (np.abs(made[0] - plain) > 0.01).mean() > 0.01
    np.testing.assert_allclose(made[1] - 500, made[0], atol=2e-3)


def test_nan_where_a_mask_says_reading_is_refused_from_arrays_and_files(tmp_path: Path) -> None:
    low, valid = LOW.copy(), np.ones(LOW.shape, bool)
    low[2, 3], low[5, 5], valid[5, 5] = np.nan, np.nan, False
    np.save(tmp_path / "low.npy", low)
    for given in (low, tmp_path / "low.npy"):
        with pytest.raises(InputError, match="1 of 192 values are NaN"):
            cd.predict("bicubic", low=given, valid=valid, size=(24, 32))
        valid[2, 3] = False
        assert not cd.predict("bicubic", low=given, valid=valid, size=(12, 16)).valid[[2, 5], [3, 5]].any()
        valid[2, 3] = True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": LOW, "kernel": "average", "once": True}, "leave one"),
        ({"low": LOW, "align": "auto", "shift": (1.5, 0)}, "whole numbers"),
        ({"low": LOW, "align": "auto", "shift": 5}, "two whole numbers"),
        ({"low": LOW, "align": True}, "unknown align True"),
        ({"low": LOW, "denoise": True}, "unknown denoise True"),
        ({"low": LOW, "kernel": "x", "once": True}, "unknown kernel"),
        ({"low": LOW, "size": (48.0, 64.0)}, "whole numbers"),
        ({"low": np.ma.masked_greater(LOW, 1.5)}, "masked array"),
    ],
)
def test_what_is_half_said_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cd.predict("bicubic", rgb=RGB, **options)


@pytest.mark.parametrize("name", ["unit", "valid", "confidence", "shift", "nan_holes", "hard_edges"])
def test_what_is_about_measured_depth_is_refused_of_a_picture_alone(name: str) -> None:
    value: Any = {"unit": "mm", "valid": LOW > 0, "confidence": LOW, "shift": (1, 0)}.get(name, True)
    with pytest.raises(InputError, match=f"^{name}=… is about measured depth"):
        cd.predict("symbiotic-small", rgb=RGB, **{name: value})


def test_bfloat16_tensors_are_read() -> None:
    low, rgb = torch.from_numpy(LOW).bfloat16(), torch.from_numpy(RGB.transpose(2, 0, 1).copy()).bfloat16()
    np.testing.assert_allclose(
        cd.predict("bicubic", low=low, rgb=rgb).depth, cd.predict("bicubic", low=LOW, rgb=RGB).depth, atol=0.02
    )


def test_a_shift_may_be_an_array_and_weights_a_path(tmp_path: Path) -> None:
    made = [cd.predict("fgs", low=LOW, rgb=RGB, align="auto", shift=s) for s in ((3, -2), np.array([3, -2]))]  # type: ignore[arg-type]
    assert np.array_equal(made[0].depth, made[1].depth)
    network: Any = load("crisp-tiny")
    network.save(tmp_path / "w.safetensors")
    ours = cd.predict(tmp_path / "w.safetensors", low=LOW, rgb=RGB).depth
    np.testing.assert_allclose(ours, cd.predict("crisp-tiny", low=LOW, rgb=RGB).depth, atol=1e-4)


class Odd(Model):
    """A model of one's own that gives what it is told to, and has a layer that draws by chance while it learns."""

    inputs = ("low",)

    def __init__(self, made: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]) -> None:
        super().__init__()
        self.made, self.drop = made, torch.nn.Dropout(0.5)

    def forward(self, low: torch.Tensor, valid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return self.drop(self.made(low, size))


def test_what_a_model_gives_is_looked_at() -> None:
    def ones(low: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return torch.ones(1, 1, *size)

    model = Odd(ones)
    assert model.training
    assert (cd.predict(model, low=LOW, size=(48, 64)).depth == 1).all()  # at rest
    assert model.training
    assert model.drop.training
    for wrong, said in (
        (lambda low, size: low, r"gave \(1, 1, 12, 16\)"),
        (lambda low, size: torch.ones(1, *size), "forward's depth must be"),
        (lambda low, size: torch.full((1, 1, *size), torch.nan), "NaN or inf"),
    ):
        with pytest.raises(InputError, match=said):
            cd.predict(Odd(wrong), low=LOW, size=(48, 64))


@pytest.mark.parametrize("wrong", [None, 3, torch.nn.Identity(), Model()])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="is no model: pass a name"):
        cd.predict(wrong, low=LOW, rgb=RGB)
    with pytest.raises(InputError, match="is no model: pass a name"):
        cd.evaluate(wrong, "scenes")


def test_options_that_could_do_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="this one sees none"):
        cd.predict("ctkt", low=LOW, rgb=RGB, align="guide")
    with pytest.raises(InputError, match="moves all out of 64x48"):
        cd.predict("crisp-tiny", low=LOW, rgb=RGB, align="auto", shift=(64, 0))
    with pytest.raises(InputError, match="unknown denoise None"):
        cd.predict("bicubic", low=LOW, rgb=RGB, denoise=None)  # type: ignore[arg-type]

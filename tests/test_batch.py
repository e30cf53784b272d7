"""Jobs over files: all or nothing for one, nothing lost for many."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_atomic import read_only

from crispdepth import batch
from crispdepth.batch import Job, Settings, pair, run, run_all
from crispdepth.io import read_depth, read_rgb, write_depth
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Model


def write_inputs(folder: Path, stem: str = "a", holes: bool = False) -> tuple[Path, Path]:
    """A low map of a step in millimetres, and colours with the same step, x4."""
    folder.mkdir(exist_ok=True)
    low = np.full((12, 16), 1000, dtype=np.uint16)
    low[:, 8:] = 2000
    if holes:
        low[2:5, 2:5] = 0
    rgb = np.full((48, 64, 3), 40, dtype=np.uint8)
    rgb[:, 32:] = 200
    Image.fromarray(low).save(folder / f"{stem}_depth.png")
    Image.fromarray(rgb).save(folder / f"{stem}_rgb.png")
    return folder / f"{stem}_depth.png", folder / f"{stem}_rgb.png"


def read_ply(path: Path) -> tuple[np.ndarray, list[str]]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    count = int(next(line.split()[-1] for line in lines if line.startswith("element vertex")))
    names = [line.split()[-1] for line in lines if line.startswith("property")]
    kinds = {"float": "<f4", "uchar": "u1"}
    types = [kinds[line.split()[1]] for line in lines if line.startswith("property")]
    return np.frombuffer(body, np.dtype(list(zip(names, types, strict=True))), count), names


def test_a_job_writes_depth_picture_and_points(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    job = Job(low, tmp_path / "o.png", rgb, tmp_path / "v.png", tmp_path / "p.ply")
    lines = run(job, load("fgs"), Settings(unit="mm", intrinsics="60,60,31.5,23.5"))
    assert any("median 1.5 m" in line for line in lines)
    depth = read_depth(tmp_path / "o.png", "mm").depth
    assert depth.shape == (48, 64)
    assert any("flying pixels left out" in line and "filled" not in line for line in lines)
    cloud, names = read_ply(tmp_path / "p.ply")
    assert {"x", "y", "z", "red", "green", "blue"} <= set(names)
    near = cloud[cloud["z"] < 1.01]
    assert near["x"].max() < 0.02  # the near half lies left of the axis
    assert near["x"].min() == pytest.approx(-31.5 / 60, abs=0.02)
    assert read_rgb(tmp_path / "v.png").shape[1] > 300


def test_the_truth_is_compared_with_and_never_written(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    truth = np.full((48, 64), 1000, dtype=np.uint16)
    truth[:, 32:] = 2000
    Image.fromarray(truth).save(tmp_path / "t.png")
    before = (tmp_path / "t.png").read_bytes()
    job = Job(low, tmp_path / "o.png", rgb, tmp_path / "v.png", truth=tmp_path / "t.png")
    lines = run(job, load("fgs"), Settings(unit="mm"))
    [line] = [line for line in lines if line.startswith("error")]
    ours, theirs = (float(word) for word in line.replace(";", "").split() if word.replace(".", "").isdigit())
    assert ours < theirs
    assert (tmp_path / "t.png").read_bytes() == before


def test_holes_are_filled_and_said_or_kept_on_request(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path, holes=True)
    lines = run(Job(low, tmp_path / "full.png", rgb), load("fgs"), Settings(unit="mm"))
    assert any("filled" in line for line in lines)
    assert read_depth(tmp_path / "full.png", "mm").valid.all()
    run(Job(low, tmp_path / "f.png", rgb, points=tmp_path / "p.ply"), load("fgs"), Settings(unit="mm"))
    assert len(read_ply(tmp_path / "p.ply")[0]) <= 48 * 64 - 12 * 12  # what was filled in is no measured point
    run(Job(low, tmp_path / "holed.png", rgb), load("fgs"), Settings(unit="mm", keep_holes=True))
    kept = read_depth(tmp_path / "holed.png", "mm").valid
    assert not kept[8:20, 8:20].any()
    assert kept[24:].all()


def test_what_comes_out_below_0_is_left_as_a_hole_and_said(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    steep = np.full((12, 16), 60, np.uint16)
    steep[:, 8:] = 60_000  # bicubic swings by 7 % of this step
    Image.fromarray(steep).save(low)
    lines = run(Job(low, tmp_path / "o.png", rgb), load("bicubic"), Settings(unit="mm"))
    assert any("at or below 0" in line for line in lines)
    holes = ~read_depth(tmp_path / "o.png", "mm").valid
    assert 0 < holes.mean() < 0.1
    assert not holes[:, 40:].any()


def test_intrinsics_of_another_size_are_rescaled_and_of_another_shape_refused(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    clouds = []
    for factor in (1, 2):
        camera = {"fx": 60 * factor, "fy": 60 * factor, "cx": 31.5 * factor + (factor - 1) / 2}
        camera |= {"cy": 23.5 * factor + (factor - 1) / 2, "width": 64 * factor, "height": 48 * factor}
        path = tmp_path / f"k{factor}.json"
        path.write_text(json.dumps(camera))
        job = Job(low, tmp_path / "o.png", rgb, points=tmp_path / "p.ply")
        run(job, load("fgs"), Settings(unit="mm", intrinsics=str(path)))
        clouds.append(read_ply(tmp_path / "p.ply")[0]["x"])
    np.testing.assert_allclose(clouds[0], clouds[1], atol=1e-5)
    (tmp_path / "k.json").write_text(json.dumps({**camera, "height": 64}))
    with pytest.raises(InputError, match="another shape"):
        run(job, load("fgs"), Settings(unit="mm", intrinsics=str(tmp_path / "k.json")))


def test_intrinsics_without_a_picture_are_those_of_the_depth_map(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.full((48, 64), 2, np.float32))
    job = Job(tmp_path / "d.npy", tmp_path / "o.npy", points=tmp_path / "p.ply")
    run(job, load("bicubic"), Settings(scale=4, intrinsics="50,50,31.5,23.5"))
    x = read_ply(tmp_path / "p.ply")[0]["x"]
    np.testing.assert_allclose([x.min(), x.max()], [-1.28, 1.28], atol=0.02)  # 2 m · 32 px / 50 px, half a pixel


def test_without_intrinsics_the_assumed_field_of_view_is_said(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    job = Job(low, tmp_path / "o.png", rgb, points=tmp_path / "p.ply")
    assert any("60°" in line for line in run(job, load("fgs"), Settings(unit="mm")))


def test_points_need_metres(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    job = Job(low, tmp_path / "o.png", rgb, points=tmp_path / "p.ply")
    with pytest.raises(InputError, match="metres"):
        run(job, load("fgs"), Settings(unit="disparity"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_depth.png", "a_rgb.png"]


def test_when_one_output_fails_none_is_written(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    far = np.full((12, 16), 60_000, dtype=np.uint16)
    Image.fromarray(far).save(low)  # 234 m in kitti's unit: more than 16-bit millimetres hold
    (tmp_path / "o.png").write_bytes(b"what was there before")
    job = Job(low, tmp_path / "o.png", rgb, picture=tmp_path / "v.png", points=tmp_path / "p.ply")
    with pytest.raises(InputError, match=r"out-unit kitti") as caught:
        run(job, load("fgs"), Settings(unit="kitti"))
    assert "o.png" in str(caught.value)
    assert (tmp_path / "o.png").read_bytes() == b"what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_depth.png", "a_rgb.png", "o.png"]


@pytest.mark.parametrize(
    ("change", "settings", "cure"),
    [
        ({"out": "missing/o.png"}, {}, "create it first"),
        ({"out": "o.gif"}, {}, ".png"),
        ({"out": "a_rgb.png"}, {}, "also an input"),
        ({"out": "a_depth.png"}, {}, "also an input"),
        ({"picture": "o.png"}, {}, "one name"),
        ({"picture": "v.bmp"}, {}, ".jpg"),
        ({"points": "p.obj"}, {}, ".ply"),
        ({}, {"scale": 4, "size": (48, 64)}, "one of them"),
        ({}, {"scale": 0.1}, "1 to 64"),
        ({}, {"fov_deg": 200}, "1 to 170"),
        ({}, {"fov_deg": 50}, "--fov is for points and meshes: add --points"),
        ({"points": "p.ply"}, {"fov_deg": 50, "intrinsics": "60,60,31.5,23.5"}, "and --intrinsics does: leave it out"),
        ({"points": "p.ply"}, {"fov_deg": 50, "calib": "calib.txt", "unit": None}, "and --calib does: leave it out"),
        ({"low": None, "points": "p.ply"}, {"fov_deg": 50, "focal_px": 60, "unit": None}, "and --focal does"),
        ({}, {"intrinsics": "60,60,31.5,23.5"}, "--points"),
        ({}, {"unit": None}, "--unit"),
        ({}, {"unit": "cm"}, "unknown unit"),
        ({}, {"out_unit": "feet"}, "unknown unit"),
        ({"truth": "a_depth.png"}, {}, "one size"),
        ({"low": "nope.png"}, {}, "no such file"),
        ({"rgb": "nope.png"}, {}, "no such file"),
        ({"rgb": None}, {}, "--rgb"),
    ],
)
def test_a_mistake_writes_nothing(tmp_path: Path, change: dict, settings: dict, cure: str) -> None:
    low, rgb = write_inputs(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    parts: dict[str, Any] = {"low": low, "rgb": rgb, "out": tmp_path / "o.png"}
    parts |= {k: None if v is None else tmp_path / v for k, v in change.items()}
    with pytest.raises(InputError, match=cure) as caught:
        run(Job(**parts), load("fgs"), Settings(**{"unit": "mm", **settings}))
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_large_picture_shows_a_detail_at_full_size(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    run(Job(low, tmp_path / "o.png", rgb, tmp_path / "small.png"), load("bicubic"), Settings(unit="mm"))
    large = Settings(unit="mm", size=(768, 1024))
    run(Job(low, tmp_path / "o.png", rgb, tmp_path / "large.png"), load("bicubic"), large)
    assert read_rgb(tmp_path / "large.png").shape[0] > 1.5 * 480
    assert read_rgb(tmp_path / "small.png").shape[0] < 1.5 * 480


# ------------------------------------------------------------------------------- many files


def folders(tmp_path: Path, stems: tuple[str, ...]) -> tuple[Path, Path, Path]:
    low_dir, rgb_dir, out = (tmp_path / name for name in ("low", "rgb", "out"))
    for folder in (low_dir, rgb_dir, out):
        folder.mkdir()
    for stem in stems:
        low, rgb = write_inputs(tmp_path / "made", stem)
        low.rename(low_dir / f"{stem}.png")
        rgb.rename(rgb_dir / f"{stem}.png")
    return low_dir, rgb_dir, out


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = folders(tmp_path, ("one", "two", "three with a space", "vier-äöü"))
    (low_dir / "two.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    jobs, lonely = pair(Job(low_dir / "*.png", out, rgb_dir))
    seen: list[list[str]] = []
    failures = run_all(jobs, load("fgs"), Settings(unit="mm"), seen.append)
    assert len(seen) == 4
    assert sum("median 1.5 m" in "".join(lines) for lines in seen) == 3
    assert len(failures) == 1
    assert "two.png" in failures[0]
    assert not lonely
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "three with a space.png", "vier-äöü.png"]


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = folders(tmp_path, ("one", "two", "three"))
    (low_dir / "two.png").unlink()
    (rgb_dir / "three.png").unlink()
    jobs, lonely = pair(Job(low_dir, out, rgb_dir, picture=out, points=out))
    assert [job.low and job.low.name for job in jobs] == ["one.png"]
    assert len(lonely) == 2
    assert "three.png" in lonely[0]
    assert run_all(jobs, load("fgs"), Settings(unit="mm")) == []
    assert sorted(p.name for p in out.iterdir()) == ["one.ply", "one.png", "one_view.png"]


def test_many_files_need_a_folder_and_a_match(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = folders(tmp_path, ("one",))
    (tmp_path / "file").write_text("")
    for name in ("x.png", "file"):
        with pytest.raises(InputError, match=f"{name}: is a file's name: many inputs need a folder"):
            pair(Job(low_dir, tmp_path / name, rgb_dir))
    with pytest.raises(InputError, match=r"--suffix '\.xyz'"):
        pair(Job(low_dir, out, rgb_dir), ".xyz")
    with pytest.raises(InputError, match="no file matches"):
        pair(Job(low_dir / "*.tif", out, rgb_dir))
    (rgb_dir / "one.png").rename(rgb_dir / "other.png")
    with pytest.raises(InputError, match="pairs by its name: the first are called 'one' and 'other'"):
        pair(Job(low_dir, out, rgb_dir))


def test_a_read_only_folder_for_many_is_refused_once_before_any_work() -> None:
    with read_only() as folder:
        job = Job(folder, folder / "out", picture=folder / "views")
        with pytest.raises(InputError, match=f"folder {folder} is read-only; choose another one"):
            pair(job)


@pytest.mark.parametrize(
    ("depth", "colour", "name"),
    [
        ("depth_0001.png", "rgb_0001.png", "0001"),
        ("00080-opaque-depth-img.png", "00080-opaque-rgb-img.png", "00080-opaque"),
        ("kitchen_depth_mm.png", "kitchen_image.jpg", "kitchen"),
        ("a.Depth.png", "a.Color.png", "a"),
        ("depth.png", "image.png", None),
        ("lowland.png", "lowland.jpg", "lowland"),
        ("a_depth.png", "a_rgb.jpg", "a"),
    ],
)
def test_files_of_one_folder_pair_by_their_names_without_the_words_for_what_they_are(
    tmp_path: Path, depth: str, colour: str, name: str | None
) -> None:
    low, rgb = write_inputs(tmp_path / "in")
    low.rename(tmp_path / "in" / depth)
    Image.open(rgb).save(tmp_path / "in" / colour)
    rgb.unlink()
    if name is None:
        with pytest.raises(InputError, match="the first are called 'depth' and 'image'"):
            pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))
        return
    (tmp_path / "in" / "mask.png").write_bytes(b"")
    jobs, lonely = pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))
    assert [line.split(":")[0] for line in lonely] == [str(tmp_path / "in" / "mask.png")]
    assert [(j.low and j.low.name, j.rgb and j.rgb.name, j.out.name) for j in jobs] == [(depth, colour, f"{name}.png")]


def test_files_whose_names_do_not_pair_can_be_listed(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path / "in")
    low.rename(tmp_path / "in" / "first_depth.png")
    rgb.rename(tmp_path / "in" / "one_color.png")
    cure = r"or --low a list\.txt of lines such as 1\.0 rgb/a\.jpg 1\.0 depth/a\.png \(depth in 1/5000 m, unless --unit"
    with pytest.raises(InputError, match=cure):
        pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))
    (tmp_path / "in" / "list.txt").write_text("1.0 one_color.png 1.0 first_depth.png")
    (job,), lonely = pair(Job(tmp_path / "in" / "list.txt", tmp_path))
    assert (job.low and job.low.name, job.rgb and job.rgb.name) == ("first_depth.png", "one_color.png")
    assert not lonely


@pytest.mark.parametrize("number", ["5000", "256"])
def test_a_number_of_a_unit_in_the_name_does_not_part_a_pair(tmp_path: Path, number: str) -> None:
    low, rgb = write_inputs(tmp_path / "in")
    low.rename(tmp_path / "in" / f"a_depth_{number}.png")
    rgb.rename(tmp_path / "in" / "a_color.png")
    (job,), lonely = pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))
    assert (job.out.name, lonely) == ("a.png", [])
    for frame in (int(number), 7):  # where all have numbers, they are the frames'
        shutil.copy(tmp_path / "in" / f"a_depth_{number}.png", tmp_path / "in" / f"b_depth_{frame}.png")
        shutil.copy(tmp_path / "in" / "a_color.png", tmp_path / "in" / f"b_color_{frame}.png")
    jobs, lonely = pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))
    assert sorted(job.out.name for job in jobs) == sorted(["b_7.png", f"b_{number}.png"])
    assert len(lonely) == 2


def test_a_size_that_nobody_said_is_asked_for_once(tmp_path: Path) -> None:
    low, _ = write_inputs(tmp_path)
    jobs = [Job(low, tmp_path / f"{i}.png") for i in range(2)]
    with pytest.raises(InputError, match="how large shall the result be"):
        run_all(jobs, load("ctkt"), Settings(unit="mm"))
    with pytest.raises(InputError, match="how large shall the result be"):
        batch.read(jobs[0], Settings(unit="mm"))
    assert run_all(jobs, load("ctkt"), Settings(unit="mm", scale=2)) == []


def test_a_folder_of_depth_alone_has_no_pictures_to_pair_with(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _, rgb = write_inputs(tmp_path / "in", name)
        rgb.unlink()
    with pytest.raises(InputError, match=r"pairs by its name.*give each two files of one name"):
        pair(Job(tmp_path / "in", tmp_path, tmp_path / "in"))


def test_depth_is_not_its_own_picture_and_swapped_files_are_told(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    photo, painted = tmp_path / "photo.jpg", tmp_path / "painted.png"
    Image.open(rgb).save(photo)
    Image.new("RGB", (64, 48), "red").save(painted)
    with pytest.raises(InputError, match="given as --low and as --rgb"):
        run(Job(low, tmp_path / "o.png", low), load("fgs"), Settings(unit="mm"))
    for picture in (painted, photo):
        with pytest.raises(InputError, match=r"a_depth\.png holds depth: are --low and --rgb swapped"):
            run(Job(picture, tmp_path / "o.png", low), load("fgs"), Settings(unit="mm"))
    other = tmp_path / "other.png"
    other.write_bytes(low.read_bytes())
    lines = run(Job(low, tmp_path / "o.png", other), load("fgs"), Settings(unit="mm"))
    assert any("other.png is 16-bit grey" in line for line in lines)
    assert not any("grey" in line for line in run(Job(low, tmp_path / "o.png", rgb), load("fgs"), Settings(unit="mm")))


def test_a_truth_of_another_unit_is_doubted_aloud(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    for millimetres, doubted in ((2000, False), (10_000, True)):
        write_depth(tmp_path / "t.png", np.full((48, 64), millimetres / 1000, np.float32))
        lines = run(Job(low, tmp_path / "o.png", rgb, truth=tmp_path / "t.png"), load("fgs"), Settings(unit="mm"))
        assert any("does it hold what --unit says?" in line for line in lines) == doubted


def test_an_unlikely_unit_is_said_and_its_cure_named(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    with pytest.raises(InputError, match=r"is the depth's unit right \(--unit mm\).*median of 1500 m \(--unit m\)"):
        batch.read(Job(low, tmp_path / "o.png", rgb), Settings(unit="m"))
    metres = tmp_path / "metres.npy"
    np.save(metres, np.full((12, 16), 1.5, np.float32))
    lines = run(Job(metres, tmp_path / "o.exr", rgb), load("fgs"), Settings(unit="mm"))
    assert any("a median of 0.0015 m is unusual: does the file really hold mm?" in line for line in lines)
    Image.fromarray(np.full((12, 16), 200, np.uint8)).save(tmp_path / "eight.png")
    lines = run(Job(tmp_path / "eight.png", tmp_path / "o.exr", rgb), load("fgs"), Settings(unit="mm"))
    assert any("a median of 0.2 m of 8-bit values is unusual" in line for line in lines)
    with pytest.raises(InputError, match="no steps for so little; is --unit mm right"):
        batch.read(Job(metres, tmp_path / "o.png", rgb), Settings(unit="mm"))
    assert not any("unusual" in line for line in run(Job(metres, tmp_path / "o.exr", rgb), load("fgs"), Settings()))


def test_what_cannot_be_with_a_picture_alone_or_a_model_is_said_before_any_work(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    with pytest.raises(InputError, match="--unit is about depth that was measured: add --low"):
        batch.read(Job(None, tmp_path / "o.png", rgb), Settings(unit="mm"))
    job = Job(low, tmp_path / "o.png", rgb, classes=tmp_path / "c.png")
    with pytest.raises(InputError, match="tells no classes apart: leave out --classes, or give --rgb alone"):
        run(job, load("fgs"), Settings(unit="mm"))
    (failure,) = batch.run_video([job], load("fgs"), Settings(unit="mm"))
    assert "tells no classes apart" in failure


@pytest.mark.parametrize(
    ("change", "settings", "cure"),
    [
        ({"points": "p.ply"}, {"intrinsics": "FOLDER/nope.json"}, "no such file"),
        ({"mesh": "p.glb"}, {"intrinsics": "FOLDER/square.json"}, "another shape"),
        ({"truth": "nope.png"}, {}, "no such file"),
        ({"low": None}, {"out_unit": "disparity"}, "m depth cannot be written as disparity"),
    ],
)
def test_what_the_outputs_need_is_looked_at_before_any_work(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], cure: str
) -> None:
    low, rgb = write_inputs(tmp_path)
    (tmp_path / "square.json").write_text(
        json.dumps({"fx": 60, "fy": 60, "cx": 31, "cy": 31, "width": 64, "height": 64})
    )
    parts: dict[str, Any] = {"low": low, "rgb": rgb, "out": tmp_path / "o.png"}
    parts |= {k: None if v is None else tmp_path / v for k, v in change.items()}
    settings = {k: v.replace("FOLDER", str(tmp_path)) for k, v in settings.items() if v is not None}
    with pytest.raises(InputError, match=cure):
        batch.read(Job(**parts), Settings(unit="mm" if parts["low"] else None, **settings))


def test_a_picture_alone_has_points_by_a_model_that_takes_no_focal_length(tmp_path: Path) -> None:
    class Flat(Model):
        inputs = ("rgb",)

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            return torch.full_like(rgb[:, :1], 2.0)

    _, rgb = write_inputs(tmp_path)
    job = Job(None, tmp_path / "o.png", rgb, points=tmp_path / "p.ply")
    lines = run(job, Flat(), Settings(intrinsics="60,60,31.5,23.5"))
    assert any("with the intrinsics given" in line for line in lines)
    with pytest.raises(InputError, match="leave out --focal"):
        run(job, Flat(), Settings(focal_px=60))


def test_the_results_never_overwrite_the_inputs(tmp_path: Path) -> None:
    low_dir, rgb_dir, _ = folders(tmp_path, ("one",))
    before = (low_dir / "one.png").read_bytes()
    with pytest.raises(InputError, match="also an input"):
        pair(Job(low_dir, low_dir, rgb_dir))
    failures = run_all([Job(low_dir / "one.png", low_dir / "one.png", rgb_dir / "one.png")], load("fgs"), Settings())
    assert "also an input" in failures[0]
    assert (low_dir / "one.png").read_bytes() == before


def test_a_missing_folder_is_made_when_there_is_something_to_write(tmp_path: Path) -> None:
    low_dir, rgb_dir, _ = folders(tmp_path, ("one", "two"))
    new = tmp_path / "new" / "results.1"
    jobs, _ = pair(Job(low_dir, new, rgb_dir, picture=tmp_path / "views"))
    assert len(run_all(jobs, load("fgs"), Settings(unit="kitti", out_unit="relative"))) == 2
    assert not (tmp_path / "new").exists()
    assert run_all(jobs, load("fgs"), Settings(unit="mm")) == []
    assert sorted(p.name for p in new.iterdir()) == ["one.png", "two.png"]
    assert sorted(p.name for p in (tmp_path / "views").iterdir()) == ["one_view.png", "two_view.png"]
    with pytest.raises(InputError, match=r"one\.png is a file; name a folder"):
        pair(Job(low_dir, rgb_dir / "one.png" / "deeper", rgb_dir))


def test_what_is_not_paired_keeps_its_own_name(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for folder in (photos, out):
        folder.mkdir()
    for name in ("IMG_1.jpg", "1.jpg"):
        Image.new("RGB", (64, 48)).save(photos / name)
    for wanted in (photos, photos / "*.jpg"):
        jobs, lonely = pair(Job(None, out, wanted, picture=out))
        assert [job.out.name for job in jobs] == ["1.png", "IMG_1.png"]
        assert [job.picture and job.picture.name for job in jobs] == ["1_view.png", "IMG_1_view.png"]
        assert not lonely
    low, _ = write_inputs(tmp_path / "low")
    (job,), lonely = pair(Job(tmp_path / "low" / "*_depth.png", out))
    assert job.out.name == low.name
    Image.new("RGB", (64, 48)).save(photos / "1.png")
    with pytest.raises(InputError, match=r"1\.png and 1\.jpg go by the same name: rename one"):
        pair(Job(None, out, photos / "*"))


def test_results_beside_the_inputs_write_over_none_of_them(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "IMG_1.jpg")
    Image.new("RGB", (64, 48)).save(tmp_path / "IMG_1_view.png")
    pattern = tmp_path / "*.jpg"
    (job,), _ = pair(Job(None, tmp_path, pattern, picture=tmp_path))  # a picture of an earlier run
    assert job.out == tmp_path / "IMG_1.png"
    for wanted in (tmp_path, tmp_path / "*"):  # it is another job's input
        with pytest.raises(InputError, match=r"IMG_1_view\.png: is also an input.*another folder"):
            pair(Job(None, tmp_path, wanted, picture=tmp_path))
    (tmp_path / "IMG_1_view.png").rename(tmp_path / "IMG_1.png")
    with pytest.raises(InputError, match=r"IMG_1\.png: is also an input, or beside them"):  # depth, by its name
        pair(Job(None, tmp_path, tmp_path))


def test_results_that_would_be_inputs_next_time_are_refused(tmp_path: Path) -> None:
    for name in ("depth", "photos"):
        (tmp_path / name).mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "depth" / "depth_0.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "0.jpg")
    for low in (tmp_path / "depth", tmp_path / "depth" / "*.png"):
        with pytest.raises(InputError, match=r"depth/0\.png: would be an input next time"):
            pair(Job(low, tmp_path / "depth", tmp_path / "photos"))
    assert len(pair(Job(tmp_path / "depth" / "depth_*.png", tmp_path / "depth", tmp_path / "photos"))[0]) == 1


def test_a_file_with_brackets_in_its_name_is_one_file(tmp_path: Path) -> None:
    low, _ = write_inputs(tmp_path, "a[1]")
    assert not batch.is_many(str(low))
    assert batch.is_many(str(tmp_path))
    assert batch.is_many(str(tmp_path / "*.png"))


def fused(folder: Path) -> Path:
    """Two frames as TSDF-fusion and 7-Scenes name them, all in one folder."""
    for i in range(2):
        low, rgb = write_inputs(folder)
        low.rename(folder / f"frame-00000{i}.depth.png")
        Image.open(rgb).save(folder / f"frame-00000{i}.color.jpg")
        rgb.unlink()
        (folder / f"frame-00000{i}.pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (folder / "camera-intrinsics.txt").write_text(" 6.0e+01 0.0 3.15e+01\n 0 60 23.5\n 0 0 1\n")
    return folder


def test_frames_of_one_folder_pair_by_the_words_after_their_dots(tmp_path: Path) -> None:
    folder, out = fused(tmp_path / "seq"), tmp_path / "out"
    out.mkdir()
    for low, rgb in ((folder, folder), (folder / "*.depth.png", folder / "*.color.jpg")):
        jobs, lonely = pair(Job(low, out, rgb, points=out))
        assert lonely == []
        assert [(job.low and job.low.name, job.rgb and job.rgb.name, job.out.name) for job in jobs] == [
            (f"frame-00000{i}.depth.png", f"frame-00000{i}.color.jpg", f"frame-00000{i}.png") for i in range(2)
        ]
    lines = run(jobs[0], load("bicubic"), Settings(unit="mm", intrinsics=str(folder / "camera-intrinsics.txt")))
    assert any("with the intrinsics given" in line for line in lines)
    jobs, lonely = pair(Job(folder, out))
    assert [job.low and job.low.name for job in jobs] == ["frame-000000.depth.png", "frame-000001.depth.png"]
    assert lonely == []
    (folder / "frame-000001.depth.png").unlink()
    (folder / "frame-000000.color.jpg").unlink()
    (folder / "frame-000002.depth.png").write_bytes(b"")
    (folder / "frame-000002.color.png").write_bytes(b"")
    jobs, lonely = pair(Job(folder, out, folder))  # a file without its partner is said, and never its own partner
    assert [job.out.name for job in jobs] == ["frame-000002.png"]
    assert [Path(line.split(":")[0]).name for line in lonely] == ["frame-000000.depth.png", "frame-000001.color.jpg"]


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = folders(tmp_path, ("a", "a_view"))
    with pytest.raises(InputError, match=r"a_view\.png: would be written twice"):
        pair(Job(low_dir, out, rgb_dir, picture=out))
    jobs, _ = pair(Job(low_dir, out, rgb_dir, picture=tmp_path / "pictures"))
    assert len(jobs) == 2


def test_the_end_of_16_bits_is_told(tmp_path: Path) -> None:
    low, rgb = write_inputs(tmp_path)
    values = np.array(Image.open(low))
    values[:2, :3] = 65535
    Image.fromarray(values).save(low)
    lines = run(Job(low, tmp_path / "o.exr", rgb), load("fgs"), Settings(unit="mm"))
    assert any("6 readings are 65535" in line and "make them 0" in line for line in lines)

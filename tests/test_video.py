"""Video: depth steadied along the motion, no ghosts, one range of colours, a film that appears whole."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import crispdepth, refused

from crispdepth import batch, inference, io, video
from crispdepth.bench import flickering
from crispdepth.data.folder import in_order
from crispdepth.data.moving import shot, way_back
from crispdepth.data.scenes import scenes
from crispdepth.io import read_depth
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Prediction
from crispdepth.video import Steady, SteadyFilm, carried, film

SIZE = (96, 128)


def texture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    noise = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2) * 2 - 0.5


def prediction(depth: np.ndarray) -> Prediction:
    return Prediction(depth.astype(np.float32), np.ones(depth.shape, dtype=bool), "m")


def test_made_films_move_as_their_poses_say() -> None:
    made = shot(2, 96, 128, seed=3)
    place, seen = way_back(made, 1)
    now, before = (f.depth[0, 0].numpy() for f in made.frames if f.depth is not None)
    assert seen.float().mean() > 0.8
    assert (place - torch.stack(torch.meshgrid(torch.arange(128), torch.arange(96), indexing="xy"))).abs().max() > 0.5
    came = carried(before, np.ascontiguousarray(place.permute(1, 2, 0).numpy()), cv2.INTER_LINEAR)
    apart = np.abs(came - now)[seen[0, 0].numpy()] / now[seen[0, 0].numpy()]
    assert np.median(apart) < 0.01


@pytest.mark.parametrize("most", [video.FLOW_PIXELS, 4000])
def test_noise_is_averaged_away_while_the_camera_moves(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "FLOW_PIXELS", most)  # less: the motion is that of halved pictures
    wide, steady, rng = texture(size=(96, 160)), Steady(), np.random.default_rng(1)
    for i in range(6):
        rgb = wide[:, 2 * i : 2 * i + 128].clip(0, 1)
        truth = np.full(SIZE, 2.0 - 0.05 * i)  # it comes nearer meanwhile
        plain = prediction(truth + rng.normal(0, 0.02, SIZE))
        better = steady(plain, rgb)
    errors = [np.sqrt(((p.depth - truth)[:, :110] ** 2).mean()) for p in (plain, better)]
    assert errors[1] < 0.75 * errors[0]
    assert abs(float((better.depth - truth).mean())) < 0.004  # and is not behind


def filmed(frames: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Depth of a film's (depth, picture), steadied from both sides."""
    steady = SteadyFilm()
    depths = []
    for i, (depth, rgb) in enumerate(frames):
        steady.push(prediction(depth), rgb)
        assert steady.full == (i >= video.AHEAD)
        if steady.full:
            depths.append(steady.pop().depth)
    return depths + [steady.pop().depth for _ in frames[len(depths) :]]


def test_what_has_gone_or_is_to_come_leaves_no_ghost() -> None:
    wall, box = texture(2).clip(0, 1), texture(3).clip(0, 1)
    steady, frames = Steady(), []
    for i in range(6):
        left = 10 + 10 * i
        rgb, depth = wall.copy(), np.full(SIZE, 3.0)
        rgb[30:60, left : left + 30] = box[30:60, 10:40]
        depth[30:60, left : left + 30] = 1.0
        frames.append((depth, rgb))
    for (depth, rgb), both in zip(frames, filmed(frames), strict=True):
        assert np.abs(steady(prediction(depth), rgb).depth - depth).max() < 0.05
        assert np.abs(both - depth).max() < 0.05


def test_frames_to_come_take_more_noise_away_than_those_before_alone() -> None:
    wide, steady, rng = texture(size=(96, 160)), Steady(), np.random.default_rng(2)
    truth = np.full(SIZE, 2.0)
    frames = [(truth + rng.normal(0, 0.02, SIZE), wide[:, 2 * i : 2 * i + 128].clip(0, 1)) for i in range(7)]
    before = [steady(prediction(depth), rgb).depth for depth, rgb in frames]
    both = filmed(frames)
    inner = np.s_[:, 15:110]
    errors = [np.sqrt(((each[3] - truth)[inner] ** 2).mean()) for each in (before, both)]
    assert errors[1] < 0.85 * errors[0]
    np.testing.assert_allclose(both[-1], before[-1], atol=1e-6)  # nothing comes after it


def panned(count: int = 7) -> list[tuple[np.ndarray, np.ndarray]]:
    """A wall with waves of 2 % of its depth, and a camera that moves along it by 3 px a frame: (depth, picture)."""
    wide, waves = texture(9, (96, 160)).clip(0, 1), 2 + 0.04 * np.sin(np.arange(160) / 2.5) * np.ones((96, 1))
    return [(waves[:, 3 * i : 3 * i + 128], wide[:, 3 * i : 3 * i + 128]) for i in range(count)]


def test_each_frame_before_and_to_come_is_carried_to_its_place_and_none_in_from_outside() -> None:
    frames = panned()
    for (depth, _), both in zip(frames, filmed(frames), strict=True):
        off = np.abs(both - depth)
        assert off.mean() < 0.002
        assert np.percentile(off[:, [*range(9), *range(119, 128)]], 95) < 0.005  # what some frames lack


ROOM = (2 + 2 * texture(14)[..., 0]).astype(np.float32)  # no camera's motion makes it flat


def test_what_was_filled_into_a_hole_changes_no_reading_of_another_frame() -> None:
    """Every second frame has a hole, 2 % off inside: too near the truth to be told by its depth."""
    hole = np.zeros(SIZE, dtype=bool)
    hole[40:70, 30:70] = True
    rgb, steady, both_ways = texture(10).clip(0, 1), Steady(), SteadyFilm()
    single, both = [], []
    for i in range(8):
        valid = ~hole if i % 2 == 0 else np.ones(SIZE, dtype=bool)
        result = Prediction(np.where(valid, ROOM, 1.02 * ROOM), valid, "m")
        single.append(steady(result, rgb).depth)
        both_ways.push(result, rgb)
        both += [both_ways.pop().depth] if both_ways.full else []
    both += [both_ways.pop().depth for _ in range(8 - len(both))]
    for i, pair in enumerate(zip(single, both, strict=True)):
        for depth in pair:
            np.testing.assert_allclose(depth[~hole], ROOM[~hole], rtol=1e-3)
            if i % 2:
                np.testing.assert_allclose(depth[hole], ROOM[hole], rtol=1e-3)  # a reading stays as it was
            elif i:
                assert np.abs(depth / ROOM - 1)[hole].mean() < 0.017  # and helps where there is none


def test_what_looks_different_has_no_say_though_its_depth_is_near() -> None:
    """A thin dark sheet lies on a table, and is gone: 1 % of the depth, within the error to expect."""
    table, book, steady = texture(11).clip(0, 1), np.s_[30:66, 40:90], Steady()
    with_book, nearer = table.copy(), ROOM.copy()
    with_book[book], nearer[book] = 0.5 * with_book[book], 0.99 * nearer[book]
    for _ in range(3):
        steady(prediction(nearer), with_book)
    gone = steady(prediction(ROOM), table).depth
    assert np.abs(gone / ROOM - 1)[34:62, 44:86].mean() < 0.003


def test_only_a_motion_that_comes_back_to_where_it_began_is_sure() -> None:
    there = np.full((*SIZE, 2), 3, np.float32)
    assert video._met(there, -there).all()
    assert video._met(there, 0.3 - there).all()
    assert not video._met(there, 1 - there).any()
    assert not video._met(there, there * 0).any()


def test_one_motion_after_another_is_looked_up_where_the_first_one_ends() -> None:
    step = np.zeros((*SIZE, 2), np.float32)
    step[..., 0] = 4
    ramp = np.zeros((*SIZE, 2), np.float32)
    ramp[..., 1] = np.arange(128) / 16
    met, sure = np.ones(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    sure[:, 50:60] = False
    flow, both = video._joined((step, met), (ramp, sure))
    np.testing.assert_allclose(flow[:, :120, 0], 4)
    np.testing.assert_allclose(flow[:, :120, 1], np.broadcast_to((np.arange(120) + 4) / 16, (96, 120)), atol=1e-4)
    assert not both[:, 46:56].any()
    assert both[:, 56:120].all()
    assert not both[:, 125:].any()


def test_depth_carried_over_keeps_up_with_a_camera_that_turns_and_comes_nearer() -> None:
    rows, columns = (np.mgrid[:96, :128] + 0.0) / [[[96]], [[128]]] - 0.5
    before = (2 + texture(13)[..., 0]).astype(np.float32)
    now = before * (1 + 0.06 * columns - 0.04 * rows + 0.01) + 0.05
    odd = now.copy()
    odd[20:40, 20:60] = 1.0  # a thing that moves by itself
    error = np.full(SIZE, 0.02, np.float32)
    kept = video._kept_up(before, odd.astype(np.float32), np.ones(SIZE, dtype=bool), error)
    np.testing.assert_allclose(kept, now, atol=0.005)


def test_a_cut_in_a_film_parts_what_is_averaged() -> None:
    one, other = texture(4).clip(0, 1), texture(5, (48, 64)).clip(0, 1)
    frames = [(np.full(SIZE, 1.0), one)] * 3 + [(np.full((48, 64), 4.0), other)] * 2 + [(np.full(SIZE, 2.0), one)]
    depths = filmed(frames)
    assert [each.shape for each in depths] == [SIZE] * 3 + [(48, 64)] * 2 + [SIZE]
    for (truth, _), depth in zip(frames, depths, strict=True):
        np.testing.assert_allclose(depth, truth, rtol=1e-5)


def test_a_cut_and_another_size_begin_anew() -> None:
    steady = Steady()
    for seed in (21, 33):
        rgb = scenes(1, *SIZE, seed).rgb
        assert rgb is not None
        depth = np.full(SIZE, seed, np.float32)
        assert (steady(prediction(depth), rgb[0].permute(1, 2, 0).numpy()).depth == depth).all()
    other = steady(prediction(np.full((48, 64), 2.0)), texture(6, (48, 64)).clip(0, 1))
    assert (other.depth == 2).all()
    with pytest.raises(InputError, match="--rgb"):
        steady(prediction(np.full(SIZE, 4.0)), None)


def test_relative_maps_with_zeros_stay_finite() -> None:
    steady, rgb = Steady(), texture(8).clip(0, 1)
    depth = np.zeros(SIZE, np.float32)
    depth[:, 64:] = -1
    for _ in range(2):
        result = steady(Prediction(depth, np.ones(SIZE, dtype=bool), "relative"), rgb)
    np.testing.assert_allclose(result.depth, depth, atol=1e-3)


def test_frames_come_in_the_order_of_their_numbers() -> None:
    names = ["f10.png", "f2.png", "f1.png", "g.png", "f1².png"]
    assert [names[i] for i in in_order(names)] == ["f1.png", "f1².png", "f2.png", "f10.png", "g.png"]


def test_a_film_to_measure_is_in_order_too(tmp_path: Path) -> None:
    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
    for i in (1, 2, 10):
        np.save(tmp_path / "depth" / f"f{i}.npy", np.full((8, 8), float(i), np.float32))
        Image.new("RGB", (8, 8)).save(tmp_path / "rgb" / f"f{i}.png")
    film = flickering.filmed(str(tmp_path / "rgb"), str(tmp_path / "depth"), "m")
    assert [float(frame.depth.max()) for frame in film.frames() if frame.depth is not None] == [1, 2, 10]


def write_frames(folder: Path, count: int) -> tuple[Path, Path, Path]:
    """``count`` frames of a wall that comes nearer, at x4."""
    low_dir, rgb_dir, out = (folder / name for name in ("frames low", "frames_rgb", "öut"))
    for each in (low_dir, rgb_dir, out):
        each.mkdir()
    for i in range(count):
        low = np.full((12, 16), 2000 - 100 * i, dtype=np.uint16)
        low[:, 8:] += 1000
        Image.fromarray(low).save(low_dir / f"{i}.png")
        Image.fromarray(np.round(texture(7, (48, 64)).clip(0, 1) * 255).astype(np.uint8)).save(rgb_dir / f"{i}.png")
    return low_dir, rgb_dir, out


def test_a_film_has_one_range_and_a_bad_frame_does_not_end_it(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 11)
    (low_dir / "5.png").write_bytes(b"")
    jobs, _ = batch.pair(batch.Job(low_dir, out, rgb_dir))
    movie = tmp_path / "a film.mp4"
    failures = batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm"), (movie, 25))
    assert len(failures) == 1
    assert "5.png" in failures[0]
    assert len(list(out.iterdir())) == 10
    assert read_depth(out / "10.png", "mm").median == pytest.approx(1.5, abs=0.6)
    reader = cv2.VideoCapture(str(movie))
    frames = []
    while (got := reader.read())[0]:
        frames.append(got[1])
    assert len(frames) == 10
    assert frames[0].shape == (48, 128, 3)
    first, last = (f[24, 70].astype(int) for f in (frames[0], frames[-1]))
    assert np.abs(first - last).max() > 20  # one range for all: what comes nearer changes colour
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a film.mp4", "frames low", "frames_rgb", "öut"]


def test_a_film_is_moved_by_one_shift_where_its_frames_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 5)
    (low_dir / "4.png").write_bytes(b"")
    each = iter([(3, 4), (4, 3), (0, 0), (3, 3)])
    monkeypatch.setattr(inference, "depth_shift", lambda *_: next(each))
    jobs, _ = batch.pair(batch.Job(low_dir, out, rgb_dir))
    said: list[str] = []
    failures = batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm", align="auto"), None, said.extend)
    assert len(failures) == 1
    assert sum("3 px right and 3 px down" in line and "whole film" in line for line in said) == 4
    each = iter([(3, 4), (4, 3), (0, 0), (3, 3)])  # by default the model sees the picture moved
    said.clear()
    batch.run_video(jobs, load("crisp-tiny"), batch.Settings(unit="mm"), None, said.extend)
    assert sum("the model saw the picture moved" in line and "whole film" in line for line in said) == 4
    monkeypatch.setattr(inference, "depth_shift", lambda *_: (0, 0))  # and nothing is said where nothing is
    said.clear()
    batch.run_video(jobs, load("crisp-tiny"), batch.Settings(unit="mm"), None, said.extend)
    assert not [line for line in said if line.startswith("align")]
    each = iter([(3, 4), (4, 3), (0, 0), (3, 3)])
    monkeypatch.setattr(inference, "depth_shift", lambda *_: next(each))
    said.clear()  # what only looks, tells once, and moves nothing
    batch.run_video(jobs, load("crisp-tiny"), batch.Settings(unit="mm", align="look"), None, said.extend)
    told = [line for line in said if line.startswith("align")]
    assert len(told) == 1
    assert "3 px right and 3 px down" in told[0]
    assert "--align auto" in told[0]


def test_an_error_of_opencv_is_that_frames_failure_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 3)
    monkeypatch.setattr(video, "LONGEST_SIDE", 2**20)
    for name in ("1.png", "2.png"):  # those of this size are compared with each other
        Image.fromarray(np.full((1, 1000), 200, np.uint16)).save(low_dir / name)
        Image.fromarray(np.full((33, 33000, 3), 200, np.uint8)).save(rgb_dir / name)
    jobs, _ = batch.pair(batch.Job(low_dir, out, rgb_dir))
    failures = batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm"))
    assert [("OpenCV" in line, Path(line.split(":")[0]).name) for line in failures] == [
        (True, "1.png"),
        (True, "2.png"),
    ]
    assert sorted(p.name for p in out.iterdir()) == ["0.png"]
    monkeypatch.undo()
    failures = batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm"))
    assert ["--size" in line for line in failures] == [True, True]
    with pytest.raises(InputError, match="--size"):
        batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm", size=(33, 33000)))


def test_a_frame_that_fails_late_takes_no_other_frames_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 7)
    jobs, _ = batch.pair(batch.Job(low_dir, out, rgb_dir))
    assert batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm")) == []
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    steadied, calls = video._steadied, iter(range(7))

    def failing(*words: object) -> np.ndarray:
        if next(calls) in (1, 5):  # while the film runs, and after its last frame
            raise MemoryError("no memory left")
        return steadied(*words)  # type: ignore[arg-type]

    for path in out.iterdir():
        path.unlink()
    monkeypatch.setattr(video, "_steadied", failing)
    failures = batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm"))
    assert [failure.split(":")[0] for failure in failures] == [str(low_dir / "1.png"), str(low_dir / "5.png")]
    left = {path.name: path.read_bytes() for path in out.iterdir()}
    assert left == {name: content for name, content in whole.items() if name not in ("1.png", "5.png")}


def test_the_command_takes_a_film_and_refuses_a_single_frame(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 3)
    words = ["predict", "--unit", "mm", "--model", "bicubic", "--rgb", rgb_dir, "-o", out]
    done = crispdepth(*words, "--low", low_dir, "--video", "--film", tmp_path / "new" / "f.mp4")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 files written" in done.stdout
    assert (tmp_path / "new" / "f.mp4").stat().st_size > 1000
    assert f"wrote    {tmp_path / 'new' / 'f.mp4'}" in done.stdout
    refused(crispdepth(*words, "--low", low_dir, "--film", tmp_path / "g.mp4"), "--video")
    refused(crispdepth(*words, "--low", low_dir / "0.png", "--video"), "many frames")


def test_a_film_without_frames_or_with_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame"), film(tmp_path / "a.mp4", 30):
        pass
    with pytest.raises(InputError, match=r"\.mp4"), film(tmp_path / "a.avi", 30):
        pass
    with pytest.raises(InputError, match="--fps"), film(tmp_path / "a.mp4", 0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_film_for_which_the_disk_is_too_small_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        rng = np.random.default_rng(0)
        with film(tmp_path / "f.mp4", 30) as show:
            for _ in range(20):
                show(rng.integers(0, 255, (120, 200, 3), np.uint8))

    for limit in (40_000, 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))  # a write beyond fails as on a full disk
        try:
            with pytest.raises(InputError, match=r"f\.mp4: only .* of 20 frames .*the disk is full"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.iterdir())


def test_steadying_made_films_takes_flicker_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flickering, "MADE_SEEDS", range(200, 202))
    monkeypatch.setattr(flickering, "MADE_FRAMES", 4)
    monkeypatch.setattr(flickering, "MADE_SIZE", (120, 160))
    result = flickering.measure("bicubic", flickering.made())
    noisy = result["noise"]["1%"]
    assert noisy["steady flicker"] < 0.9 * noisy["flicker"]
    assert noisy["steady rmse"] < noisy["rmse"]
    assert "steadied" in flickering.table(result)


def test_a_film_leaves_the_holes_that_were_asked_for(tmp_path: Path) -> None:
    low_dir, rgb_dir, out = write_frames(tmp_path, 2)
    for path in low_dir.iterdir():
        low = np.asarray(Image.open(path)).copy()
        low[2:8, 2:8] = 0
        Image.fromarray(low).save(path)
    jobs, _ = batch.pair(batch.Job(low_dir, out, rgb_dir))
    shown = []
    for name, asked in (("filled", {}), ("kept", {"keep_holes": True}), ("wide", {"max_hole_px": 8})):
        movie = tmp_path / f"{name}.mp4"
        assert batch.run_video(jobs, load("bicubic"), batch.Settings(unit="mm", **asked), (movie, 25)) == []
        frame = cv2.VideoCapture(str(movie)).read()[1].astype(int)
        shown.append(frame[20, 64 + 20])
    assert np.abs(shown[0] - shown[1]).max() > 40
    np.testing.assert_allclose(shown[1], shown[2], atol=8)


def test_a_film_of_levels_is_in_levels(tmp_path: Path) -> None:
    for name in ("low", "rgb"):
        (tmp_path / name).mkdir()
    for i in range(3):
        low = np.where(np.arange(32) < 14 + i, 60, 140)[None].repeat(24, 0).astype(np.uint8)
        Image.fromarray(low + np.arange(24, dtype=np.uint8)[:, None] // 2).save(tmp_path / "low" / f"{i}.png")
        io.write_rgb(tmp_path / "rgb" / f"{i}.png", (texture(i) * 255).astype(np.uint8))
    wanted = batch.Job(low=tmp_path / "low", rgb=tmp_path / "rgb", out=tmp_path / "out")
    jobs, _ = batch.pair(wanted, ".npy")
    settings = batch.Settings(unit="disparity", levels=True)
    assert batch.run_video(jobs, load("ctkt"), settings) == []
    for i in range(3):
        made = np.load(tmp_path / "out" / f"{i}.npy")
        assert (made == made.round()).all()


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--scale", "4", "--video"], "pass --rgb"),
        (["--rgb", "c", "--video", "--film", "p.mp4", "--fps", "0"], "--fps 0 is out of range"),
        (["--rgb", "c", "--video", "--film", "p.avi"], r"use one of \.mp4"),
        (["--rgb", "c", "--fps", "10"], "--fps is for --film"),
    ],
)
def test_what_a_film_lacks_is_said_before_the_work(
    words: list[str], cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("l", "c"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((8, 8), 900, np.uint16)).save(tmp_path / name / f"{i}.png")
    refused(crispdepth("predict", "--low", "l/", "--unit", "mm", "-o", "out", *words), cure)
    assert not (tmp_path / "out").exists()


def test_colours_of_whole_numbers_are_those_of_floats_and_others_are_refused() -> None:
    wide, made = np.clip(texture(size=(96, 160)), 0, 1), []
    for kind in (np.float32, np.uint8, np.uint16):
        steady, rng = Steady(), np.random.default_rng(3)
        most = 1 if kind == np.float32 else np.iinfo(kind).max  # type: ignore[type-var]
        for i in range(3):
            rgb = wide[:, 2 * i : 2 * i + 128] * most
            rgb = (rgb if most == 1 else rgb.round()).astype(kind)
            last_plain = prediction(2 + rng.normal(0, 0.02, SIZE))
            last = steady(last_plain, rgb)
        made.append(last.depth)
    for other in made[1:]:
        assert np.abs(other - made[0]).mean() < 1e-4  # a colour may be rounded another way
        assert np.abs(other - 2).mean() < 0.95 * np.abs(last_plain.depth - 2).mean()
    with pytest.raises(InputError, match=r"pass .* colours"):
        Steady()(prediction(np.ones(SIZE)), np.ones(SIZE, np.float32))

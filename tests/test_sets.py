"""The published data sets, each read from a few tiny files written in its layout: metres, holes, low maps, splits."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from crispdepth.about import info, names
from crispdepth.bench.protocol import PROTOCOLS
from crispdepth.data.hypersim import SPLIT, tone_mapped
from crispdepth.data.sets import SETS, find
from crispdepth.types import InputError, Sample

NEW = ("nyu_eigen", "rgbdd", "tofdsr", "diml", "hypersim", "kitti")


def put_rgb(path: Path, height: int = 6, width: int = 8, value: int = 51) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8)).save(path)


def put_depth(path: Path, value: int, height: int = 6, width: int = 8) -> None:
    """16 bits of one value, with a hole in the upper left corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width), value, dtype=np.uint16)
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)


def put_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = array


def assert_metres(sample: Sample, metres: float) -> None:
    """One depth everywhere but in the hole at the corner, and a picture of the same size."""
    assert sample.rgb is not None
    assert sample.depth is not None
    assert sample.depth_valid is not None
    assert sample.rgb.shape == (1, 3, 6, 8)
    assert float(sample.rgb.mean()) == pytest.approx(0.2, abs=0.01)
    assert sample.depth.shape == sample.depth_valid.shape == (1, 1, 6, 8)
    assert not sample.depth_valid[0, 0, 0, 0]
    assert sample.depth_valid.sum() == 6 * 8 - 1
    assert sample.depth[sample.depth_valid].unique().tolist() == pytest.approx([metres])


def put_rgbdd(folder: Path, stem: str, value: int, low: bool = True) -> None:
    put_rgb(folder / f"{stem}_RGB.jpg")
    put_depth(folder / f"{stem}_HR_gt.png", value)
    if low:
        put_depth(folder / f"{stem}_LR_fill_depth.png", value + 10, 3, 4)


def test_rgbdd_takes_three_categories_with_the_phones_map(tmp_path: Path) -> None:
    put_rgbdd(tmp_path / "models" / "models_test" / "20200518160957", "20200518160957", 750)
    put_rgbdd(tmp_path / "plants" / "plants_test" / "7", "7", 800, low=False)
    put_rgbdd(tmp_path / "portraits" / "portraits_train" / "8", "8", 900)
    put_rgbdd(tmp_path / "lights" / "lights_test" / "9", "9", 900)
    readers = find("rgbdd", tmp_path)
    assert list(readers) == ["models/20200518160957", "plants/7"]
    sample = readers["models/20200518160957"]()
    assert_metres(sample, 0.75)
    assert sample.low is not None
    assert sample.valid is not None
    assert sample.low.shape == (1, 1, 3, 4)
    assert float(sample.low[0, 0, 1, 1]) == pytest.approx(0.76)
    assert not sample.valid[0, 0, 0, 0]
    assert list(find("rgbdd", tmp_path, part="train")) == ["portraits/8"]
    without = readers["plants/7"]()
    assert without.low is None
    with pytest.raises(InputError, match="crispdepth info rgbdd"):
        list(PROTOCOLS["tofdsr"].prepare(without, 4, "rgbdd", "m"))


def test_rgbdd_in_flat_folders(tmp_path: Path) -> None:
    for part, value in (("Test", 500), ("Train", 600)):
        put_rgb(tmp_path / part / "RGBDD_RGB" / "1_RGB.jpg")
        put_depth(tmp_path / part / "RGBDD_GT" / "1_HR_gt.png", value)
        put_depth(tmp_path / part / "RGBDD_LR" / "1_LR_fill_depth.png", value, 3, 4)
    for part, metres in (("test", 0.5), ("train", 0.6)):
        sample = find("rgbdd", tmp_path, part=part)["1"]()
        assert_metres(sample, metres)
        assert sample.low is not None


def put_tofdsr(root: Path) -> None:
    lines = []
    for part, value in (("Train", 3000), ("Test", 2500)):
        files = f"RGB/{value}_rgb_crop.png", f"GT/{value}_tgv_gt_crop.png", f"LR_Filled/{value}_depth_crop_fill.png"
        rgb, depth, low = (f"TOFDC_split/{part}/{file}" for file in files)
        put_rgb(root / rgb)
        put_depth(root / depth, value)
        put_depth(root / low, value, 3, 4)
        lines.append(f"{rgb},{depth},{low}\n")
        missing = f"{rgb},{depth.replace('GT', 'gone')},{low}\n"
        (root / f"TOFDSR_{part}.txt").write_text(f"{lines[-1]}{missing}\n")


def test_tofdsr_follows_its_lists(tmp_path: Path) -> None:
    put_tofdsr(tmp_path)
    assert list(find("tofdsr", tmp_path)) == ["2500"]
    assert list(find("tofdsr", tmp_path, part="train")) == ["3000"]
    sample = find("tofdsr", tmp_path)["2500"]()
    assert_metres(sample, 2.5)
    assert sample.low is not None
    assert sample.low.shape == (1, 1, 3, 4)


def test_tofdsr_lists_may_lie_inside_the_folder_they_name(tmp_path: Path) -> None:
    put_tofdsr(tmp_path)
    (tmp_path / "TOFDSR_Test.txt").rename(tmp_path / "TOFDC_split" / "TOFDSR_Test.txt")
    assert_metres(find("tofdsr", tmp_path / "TOFDC_split")["2500"](), 2.5)


def test_a_line_that_names_too_little_is_refused_by_its_number(tmp_path: Path) -> None:
    put_tofdsr(tmp_path)
    (tmp_path / "TOFDSR_Test.txt").write_text("a.png,b.png,c.png\na.png,b.png\n")
    with pytest.raises(InputError, match=r"TOFDSR_Test\.txt, line 2"):
        find("tofdsr", tmp_path)


@pytest.mark.parametrize(
    ("test_list", "test_folder", "train_list", "train_folder"),
    [
        ("nyudepthv2_test_files_with_gt.txt", "official_splits/test", "nyudepthv2_train_files_with_gt.txt", "sync"),
        ("nyu_test.txt", ".", "nyu_train.txt", "."),
    ],
)
def test_nyu_eigen_follows_its_lists(
    tmp_path: Path, test_list: str, test_folder: str, train_list: str, train_folder: str
) -> None:
    for list_name, folder, number, slash in ((test_list, test_folder, "45", ""), (train_list, train_folder, "46", "/")):
        put_rgb(tmp_path / folder / f"bathroom/rgb_000{number}.jpg")
        put_depth(tmp_path / folder / f"bathroom/sync_depth_000{number}.png", int(number) * 100)
        pair = f"{slash}bathroom/rgb_000{number}.jpg {slash}bathroom/sync_depth_000{number}.png 518.8579\n"
        (tmp_path / list_name).write_text(pair + pair.replace("bathroom", "kitchen"))
    readers = find("nyu_eigen", tmp_path)
    assert list(readers) == ["bathroom/rgb_00045"]
    assert_metres(readers["bathroom/rgb_00045"](), 4.5)
    learnt = find("nyu_eigen", tmp_path, part="train")
    assert list(learnt) == ["bathroom/rgb_00046"]
    assert_metres(learnt["bathroom/rgb_00046"](), 4.6)


@pytest.mark.parametrize(
    ("raw", "truth"), [("raw", "gts"), ("input", "gt_depth"), (".", "data_depth_annotated/val"), (".", "train")]
)
def test_kitti_follows_its_list_and_leaves_out_what_has_no_truth(tmp_path: Path, raw: str, truth: str) -> None:
    lines = []
    for number in (54, 69):
        rgb = f"2011_09_26/2011_09_26_drive_0002_sync/image_02/data/{number:010d}.png"
        depth = f"2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/{number:010d}.png"
        put_rgb(tmp_path / raw / rgb)
        put_depth(tmp_path / truth / depth, number * 256)
        lines.append(f"{rgb} {'None' if number == 54 else depth} 721.5377\n")
    (tmp_path / "kitti_eigen_test_files_with_gt.txt").write_text("".join(lines))
    (tmp_path / "eigen_train_files_with_gt.txt").write_text(lines[1])
    readers = find("kitti", tmp_path)
    assert list(readers) == ["2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069"]
    assert_metres(next(iter(readers.values()))(), 69.0)
    assert len(find("kitti", tmp_path, part="train")) == 1


def test_diml_prefers_the_large_filled_maps(tmp_path: Path) -> None:
    for quality, value in (("HR", 2000), ("LR", 1000)):
        scene = tmp_path / "indoor" / "test" / quality / "02. Cafe"
        put_rgb(scene / "color" / "in_00_1_c.png")
        put_depth(scene / "depth_filled" / "in_00_1_depth_filled.png", value)
        put_depth(scene / "depth_raw" / "in_00_1_depth_raw.png", 9)
        put_depth(scene / "depth_vi" / "in_00_1_depth_vi.png", 9)
    put_rgb(tmp_path / "train" / "LR" / "Hall" / "color" / "in_00_2_c.png")
    put_depth(tmp_path / "train" / "LR" / "Hall" / "depth_raw" / "in_00_2_depth_raw.png", 3000)
    readers = find("diml", tmp_path)
    assert list(readers) == ["02. Cafe/in_00_1"]
    assert_metres(readers["02. Cafe/in_00_1"](), 2.0)
    assert_metres(find("diml", tmp_path, part="train")["Hall/in_00_2"](), 3.0)


def put_hypersim(root: Path, distance: np.ndarray) -> None:
    """Two test views of one scene, one with a preview and one without, and one view to learn from."""
    height, width = distance.shape
    table = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
    for scene, number, split in (("ai_001_001", 0, "test"), ("ai_001_001", 12, "test"), ("ai_002_001", 3, "train")):
        images, frame = root / scene / "images", f"frame.{number:04d}"
        put_array(images / "scene_cam_00_geometry_hdf5" / f"{frame}.depth_meters.hdf5", distance)
        if number == 12:
            colours = np.full((height, width, 3), 4, dtype=np.float16)
            put_array(images / "scene_cam_00_final_hdf5" / f"{frame}.color.hdf5", colours)
        else:
            put_rgb(images / "scene_cam_00_final_preview" / f"{frame}.tonemap.jpg", height, width)
        table += f"{scene},cam_00,{number},True,,{split}\n"
    (root / SPLIT).write_text(table + "ai_001_001,cam_00,13,False,people,\nai_009_001,cam_00,0,True,,test\n")


def test_hypersims_distance_to_a_wall_becomes_its_planar_depth(tmp_path: Path) -> None:
    x, y = np.arange(1024) - 511.5, np.arange(4)[:, None] - 1.5
    wall = (2 * np.sqrt(x**2 + y**2 + 886.81**2) / 886.81).astype(np.float32)  # 2 m ahead, seen along each ray
    wall[0, 0] = np.nan
    put_hypersim(tmp_path, wall)
    readers = find("hypersim", tmp_path)
    assert list(readers) == ["ai_001_001/cam_00/0", "ai_001_001/cam_00/12"]
    assert list(find("hypersim", tmp_path, part="train")) == ["ai_002_001/cam_00/3"]
    sample = readers["ai_001_001/cam_00/0"]()
    assert sample.depth is not None
    assert sample.depth_valid is not None
    assert sample.intrinsics is not None
    assert sample.depth_valid.logical_not().nonzero().tolist() == [[0, 0, 0, 0]]
    assert sample.depth.isfinite().all()
    torch.testing.assert_close(sample.depth[sample.depth_valid], torch.full((4095,), 2.0), rtol=2e-6, atol=0)
    assert sample.intrinsics[0, 0].tolist() == pytest.approx([886.81, 0, 511.5])
    bare = readers["ai_001_001/cam_00/12"]()
    assert bare.rgb is not None
    assert bare.rgb.shape == (1, 3, 4, 1024)
    assert float(bare.rgb.min()) == pytest.approx(0.8, abs=1e-5)


def test_hypersim_keeps_its_table_in_analysis_and_its_scenes_in_scenes(tmp_path: Path) -> None:
    put_hypersim(tmp_path / "scenes", np.ones((6, 8), dtype=np.float16))
    (tmp_path / "analysis").mkdir()
    (tmp_path / "scenes" / SPLIT).rename(tmp_path / "analysis" / SPLIT)
    for root in (tmp_path, tmp_path / "scenes"):
        assert len(find("hypersim", root)) == 2


def test_hypersim_refuses_what_it_cannot_read_in_one_line(tmp_path: Path) -> None:
    put_hypersim(tmp_path, np.full((6, 8), np.nan, dtype=np.float16))
    read = find("hypersim", tmp_path)["ai_001_001/cam_00/0"]
    with pytest.raises(InputError, match="no reading"):
        read()
    distance = tmp_path / "ai_001_001" / "images" / "scene_cam_00_geometry_hdf5" / "frame.0000.depth_meters.hdf5"
    distance.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="HDF5"):
        read()
    (tmp_path / SPLIT).write_text("scene_name,camera_name\n")
    with pytest.raises(InputError, match="lacks frame_id, split_partition_name"):
        find("hypersim", tmp_path)


def test_tone_mapping_brings_the_90th_percentile_to_four_fifths() -> None:
    colours = np.repeat(np.arange(1, 12, dtype=np.float32)[None, :, None], 3, axis=2)  # 1 to 11, grey
    seen = np.ones((1, 11), dtype=bool)
    mapped = tone_mapped(colours, seen)
    assert mapped[0, 9, 0] == pytest.approx(0.8, abs=1e-5)  # 10 is the 90th percentile
    assert mapped[0, 0, 0] == pytest.approx(0.8 * 0.1 ** (1 / 2.2), abs=1e-5)
    assert not tone_mapped(np.zeros((1, 11, 3), dtype=np.float32), seen).any()


def test_names_and_info_tell_of_every_set() -> None:
    listed = names()
    for name in NEW:
        row = SETS[name]
        assert row.train is not None
        assert row.unit == "m"
        assert f"  {name:16s} {row.layout}" in listed
        assert row.source in info(name)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("kitti", ("data set", "unit")), ("ctkt", ("model", "protocol")), ("tofdsr", ("data set", "protocol"))],
)
def test_info_tells_every_meaning_of_a_name(name: str, kinds: tuple[str, ...]) -> None:
    told = info(name).split("\n\n")
    assert all(part.startswith(f"{kind} {name}") for kind, part in zip(kinds, told, strict=True))


def test_protocols_treat_eigens_nyu_like_nyu() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.border("nyu_eigen") == protocol.border("nyu")
        assert protocol.clip_truth_m.get("nyu_eigen") == protocol.clip_truth_m.get("nyu")


def test_a_set_is_found_by_its_name_where_the_environment_keeps_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRISPDEPTH_DATA", raising=False)
    with pytest.raises(InputError, match=r"\$CRISPDEPTH_DATA/lu"):
        find("lu", None)
    monkeypatch.setenv("CRISPDEPTH_DATA", str(tmp_path))
    with pytest.raises(InputError, match="needs --root"):
        find("lu", None)
    (tmp_path / "lu").mkdir()
    with pytest.raises(InputError, match="found no pair of lu"):
        find("lu", None)

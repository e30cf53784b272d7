"""Data sets read from small files that the tests write in the published layouts."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from crispdepth.data import folder, nyu
from crispdepth.data.sample import write_sample
from crispdepth.data.sets import HELD_BACK_SEED, SETS, TUNING_SEED, find, scene_samples
from crispdepth.intrinsics import read_intrinsics
from crispdepth.io import read_depth, read_rgb
from crispdepth.types import InputError


def save_rgb(path: Path, height: int = 12, width: int = 16) -> np.ndarray:
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(("set_name", "prefix"), [("middlebury", "Middlebury"), ("lu", "RGBD")])
def test_pairs_of_levels_keep_zero_as_a_value(tmp_path: Path, set_name: str, prefix: str) -> None:
    save_rgb(tmp_path / f"{prefix}_07_output_color.png")
    levels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    Image.fromarray(levels).save(tmp_path / f"{prefix}_07_output_depth.png")
    save_rgb(tmp_path / f"{prefix}_09_output_color.png")  # its depth is missing: not a pair
    readers = find(set_name, tmp_path)
    assert list(readers) == [f"{prefix}_07_output"]
    sample = readers[f"{prefix}_07_output"]()
    assert sample.depth is not None
    assert sample.depth_valid is not None
    np.testing.assert_array_equal(sample.depth[0, 0].numpy(), levels)
    assert sample.depth_valid.all()


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    """Two pairs in the layout of nyu_depth_v2_labeled.mat: axes reversed, as MATLAB's HDF5 has them."""
    rng = np.random.default_rng(0)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w") as file:
        file["images"] = rng.integers(0, 255, (2, 3, 16, 12), dtype=np.uint8)
        file["depths"] = rng.uniform(1, 9, (2, 16, 12)).astype(np.float32)
    return path


def test_the_labelled_mat_is_turned_upright(mat: Path) -> None:
    readers = nyu.mat_samples(mat)
    sample = readers["1"]()
    assert sample.rgb is not None
    assert sample.depth is not None
    assert sample.rgb.shape == (1, 3, 12, 16)
    with h5py.File(mat) as file:
        assert float(sample.depth[0, 0, 5, 9]) == file["depths"][1, 9, 5]
        assert float(sample.rgb[0, 2, 5, 9]) * 255 == pytest.approx(file["images"][1, 2, 9, 5])


def test_the_test_split_begins_after_1000_pairs(mat: Path) -> None:
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled\.mat"):
        find("nyu", mat.parent)  # two pairs: none of them is a test pair
    assert len(nyu.mat_samples(mat, last=1)) == 1


def test_a_mat_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20)
    with pytest.raises(InputError, match="HDF5"):
        find("nyu", tmp_path)


def test_a_mat_damaged_inside_is_refused_when_its_pair_is_read(mat: Path) -> None:
    with h5py.File(mat, "a") as file:
        del file["images"]
    with pytest.raises(InputError, match="damaged at pair 1"):
        nyu.mat_samples(mat)["1"]()


def test_nyu_files_carry_classes_with_255_for_unlabelled(tmp_path: Path) -> None:
    save_rgb(tmp_path / "3_color.jpg")
    np.save(tmp_path / "3_depth.npy", np.full((12, 16), 2.0, dtype=np.float32))
    labels = np.zeros((12, 16), dtype=np.uint8)
    labels[:, 8:] = 13
    Image.fromarray(labels).save(tmp_path / "3_classes13.png")
    sample = find("nyu", tmp_path)["3"]()
    assert sample.classes is not None
    assert sample.classes.unique().tolist() == [12, 255]


def test_the_real_nyu_image_reads(real_data: Path) -> None:
    sample = find("nyu", real_data / "nyu")["1000"]()
    assert sample.depth is not None
    assert sample.classes is not None
    assert sample.depth.shape == sample.classes.shape == (1, 1, 480, 640)
    assert 0.7 < float(sample.depth.min()) < float(sample.depth.max()) < 4.1


def test_a_folder_pairs_by_stem_and_brings_the_sensors_map(tmp_path: Path) -> None:
    for name in ("rgb", "depth", "low"):
        (tmp_path / name).mkdir()
    for name in ("a_rgb.png", "b.png"):
        save_rgb(tmp_path / "rgb" / name)
    for name in ("a_depth", "b", "c"):
        Image.fromarray(np.full((12, 16), 1500, dtype=np.uint16)).save(tmp_path / "depth" / f"{name}.png")
    Image.fromarray(np.full((3, 4), 1500, dtype=np.uint16)).save(tmp_path / "low" / "a.png")
    readers = find("folder", tmp_path, "mm")
    assert list(readers) == ["a", "b"]
    a, b = readers["a"](), readers["b"]()
    assert a.low is not None
    assert a.low.shape == (1, 1, 3, 4)
    assert float(a.low.mean()) == pytest.approx(1.5)
    assert b.low is None
    assert [path.name for path in folder.unpaired(tmp_path)] == ["c.png"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rename one"):
        folder.by_stem([tmp_path / "a.png", tmp_path / "a_depth.png"])


def test_truth_and_colours_must_have_one_size(tmp_path: Path) -> None:
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    save_rgb(tmp_path / "rgb" / "a.png")
    np.save(tmp_path / "depth" / "a.npy", np.ones((6, 8), dtype=np.float32))
    with pytest.raises(InputError, match="differ in size"):
        find("folder", tmp_path)["a"]()


def test_every_set_but_scenes_says_how_its_folder_must_look(tmp_path: Path) -> None:
    for name, row in SETS.items():
        if row.made_here:
            continue
        for part in ("test", "train") if row.train else ("test",):
            for root in (tmp_path, tmp_path / "missing"):
                with pytest.raises(InputError) as caught:
                    find(name, root, part=part)
                assert row.layout in str(caught.value)
                assert row.source in str(caught.value)
        with pytest.raises(InputError, match="--root"):
            find(name, None)


def test_scenes_for_measuring_and_for_tuning_share_no_seed() -> None:
    measuring = set(scene_samples())
    assert min(map(int, measuring)) == HELD_BACK_SEED
    assert not measuring & set(scene_samples(TUNING_SEED, 1000))


def test_a_sample_is_written_whole_and_reads_back(tmp_path: Path) -> None:
    lines = write_sample(tmp_path / "new", scale=4, seed=3, size=(50, 70))
    assert len(lines) == 4
    rgb = read_rgb(tmp_path / "new" / "rgb.png")
    truth, low = (read_depth(tmp_path / "new" / f"{n}.png", "mm") for n in ("truth", "low"))
    camera = read_intrinsics(str(tmp_path / "new" / "intrinsics.json"))
    assert rgb.shape[:2] == truth.depth.shape == (48, 68) == (camera.height, camera.width)
    assert low.depth.shape == (12, 17)
    with pytest.raises(InputError, match="does not fit"):
        write_sample(tmp_path, scale=32, seed=0, size=(50, 50))

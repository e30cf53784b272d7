"""Protocols and evaluation against plain numpy and PIL, on made-up levels and, where present, real images."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.plain import bicubic_rmse

from crispdepth.about import FIGURES
from crispdepth.bench import evaluation, report
from crispdepth.bench.evaluation import evaluate, usual_protocol
from crispdepth.bench.protocol import PROTOCOLS
from crispdepth.bench.report import fitting, table, write_json, write_numbers
from crispdepth.inference import predict
from crispdepth.models.catalog import load, sharpeners
from crispdepth.types import InputError, Prediction, Sample

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made-up pairs named like Middlebury's, 8-bit levels, sides no multiples of 16."""
    root = tmp_path_factory.mktemp("middlebury")
    rng = np.random.default_rng(0)
    for i in range(3):
        depth = rng.integers(20, 240, (10, 13)).astype(np.uint8).repeat(11, 0).repeat(11, 1)
        rgb = np.stack([depth, 255 - depth, depth // 2], -1)
        Image.fromarray(depth).save(root / f"Middlebury_{i:02d}_output_depth.png")
        Image.fromarray(rgb).save(root / f"Middlebury_{i:02d}_output_color.png")
    return root


def plain_mean(root: Path, pattern: str, scale: int, protocol: str) -> float:
    border, eight_bit, clip = {"fdsr": (6, True, False), "dctnet": (0, False, True)}[protocol]
    truths = [np.asarray(Image.open(p)) for p in sorted(root.glob(pattern))]
    return float(np.mean([bicubic_rmse(t, scale, border, eight_bit, clip) for t in truths]))


@pytest.mark.parametrize("protocol", ["fdsr", "dctnet"])
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_bicubic_equals_pil_on_made_up_levels(levels: Path, scale: int, protocol: str) -> None:
    ours = evaluate(load("bicubic"), "middlebury", levels, scale, protocol)
    assert ours.metrics["rmse"] == pytest.approx(plain_mean(levels, "*_depth.png", scale, protocol), abs=0.01)
    assert len(ours.images) == 3


def test_levels_are_measured_rounded_too_and_metres_are_not(levels: Path) -> None:
    ours = evaluate(load("bicubic"), "middlebury", levels, 4, "ctkt").metrics
    assert 0 < ours["mad_rounded"] < ours["mad"]  # flat places overshoot by less than half a level
    made = evaluate(load("bicubic"), "scenes", scale=4, protocol="ctkt").metrics
    assert math.isnan(made["mad_rounded"])
    assert made["mad"] > 0


@pytest.mark.parametrize(
    ("protocol", "model", "asked"),
    [("ctkt", "ctkt", True), ("ctkt", "ctkt+", True), ("ctkt", "bicubic", False), ("fdsr", "ctkt", False)],
)
def test_whole_levels_are_asked_for_by_protocol_ctkt_alone(
    levels: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, model: str, asked: bool
) -> None:
    said = []

    def watched(*parts: Any, **named: Any) -> Prediction:
        said.append(named["levels"])
        return predict("bicubic", **{name: x for name, x in named.items() if name != "levels"})

    monkeypatch.setattr(evaluation, "predict", watched)
    about = evaluate(load(model), "middlebury", levels, 4, protocol).heading
    assert said == [asked] * 3
    assert ("whole levels asked" in about) is (protocol == "ctkt")
    said.clear()
    evaluate(load(model), "scenes", scale=4, protocol=protocol)
    assert not any(said)  # metres


def test_a_model_and_a_folder_may_be_given_by_name(levels: Path) -> None:
    by_name, loaded = (evaluate(model, "middlebury", str(levels), 4) for model in ("bicubic", load("bicubic")))
    assert by_name.metrics == loaded.metrics
    assert (by_name.model, loaded.model) == ("bicubic", "Bicubic")
    with pytest.raises(InputError, match="did you mean bicubic"):
        evaluate("bicubi", "middlebury", levels, 4)
    with pytest.raises(InputError, match="in nowhere, which does not exist"):
        evaluate("bicubic", "middlebury", "nowhere", 4)


@pytest.mark.parametrize("set_name", ["middlebury", "lu"])
@pytest.mark.parametrize("protocol", ["fdsr", "dctnet"])
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_bicubic_equals_pil_on_the_real_images(real_data: Path, set_name: str, scale: int, protocol: str) -> None:
    ours = evaluate(load("bicubic"), set_name, real_data / set_name, scale, protocol)
    expected = plain_mean(real_data / set_name, "*_depth.png", scale, protocol)
    assert ours.metrics["rmse"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("scale", [8, 16])
@pytest.mark.parametrize("set_name", ["middlebury", "lu"])
def test_fgs_beats_bicubic_on_the_real_images(real_data: Path, set_name: str, scale: int) -> None:
    ours, plain = (
        evaluate(load(name), set_name, real_data / set_name, scale, "fdsr").metrics["rmse"]
        for name in ("fgs", "bicubic")
    )
    assert ours < 0.9 * plain


def metric_sample(height: int = 300, width: int = 520) -> Sample:
    depth = torch.linspace(0.05, 12, height * width).reshape(1, 1, height, width)
    rgb = torch.zeros(1, 3, height, width)
    return Sample(rgb=rgb, depth=depth, depth_valid=torch.ones_like(depth, dtype=torch.bool), name="x")


def test_the_border_is_cut_where_the_protocol_says() -> None:
    assert PROTOCOLS["fdsr"].border("lu") == PROTOCOLS["fdsr"].border("nyu") == 6
    assert PROTOCOLS["dctnet"].border("lu") == 0
    assert PROTOCOLS["dctnet"].border("nyu") == 6


def test_a_pair_that_cannot_be_read_is_named_and_the_others_are_measured(levels: Path, tmp_path: Path) -> None:
    for path in levels.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "Middlebury_01_output_depth.png").write_bytes(b"broken")
    result = evaluate(load("bicubic"), "middlebury", tmp_path, 4, "fdsr")
    assert len(result.images) == 2
    assert [line.partition(":")[0] for line in result.failed] == ["Middlebury_01_output"]
    assert "2 images (1 left out)" in result.heading
    for path in tmp_path.glob("*_depth.png"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="no pair of middlebury could be measured"):
        evaluate(load("bicubic"), "middlebury", tmp_path, 4, "fdsr")


def test_the_readmes_table_and_info_show_the_same_figures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table_lines = readme.partition("<!-- numbers -->")[2].partition("<!-- end of numbers -->")[0].strip().splitlines()
    columns = [cell.strip() for cell in table_lines[0].strip("|").split("|")][1:]
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = {line.split("`")[1]: [cell.split()[0] for cell in line.split("|")[2:-1]] for line in table_lines[2:]}
    assert set(rows) == set(sharpeners())
    assert set(figures) == set(rows) | set(fitting("rgb"))
    for name, values in rows.items():
        for column, value in zip(columns, values, strict=True):
            key, unit, count = (part.strip() for part in column.split(","))
            assert figures[name][key] == f"RMSE {value} {unit}, mean of {count}"


def test_naima_clips_the_truth_of_nyu_only() -> None:
    [part] = PROTOCOLS["naima"].prepare(metric_sample(), 4, "nyu", "m")
    assert part.depth is not None
    frame = part.depth[..., :300, :520]
    assert (float(frame.min()), float(frame.max())) == pytest.approx((0.1, 10))
    [part] = PROTOCOLS["naima"].prepare(metric_sample(), 4, "rgbdd", "m")
    assert part.depth is not None
    assert float(part.depth.max()) > 11


def test_naima_pads_to_a_square_of_112s_and_measures_the_frame_alone() -> None:
    sample = metric_sample(300, 520)
    [part] = PROTOCOLS["naima"].prepare(sample, 4, "rgbdd", "m")
    assert part.depth is not None
    assert part.depth_valid is not None
    assert part.low is not None
    assert part.rgb is not None
    assert part.depth.shape == part.rgb[:, :1].shape == (1, 1, 560, 560)
    assert part.low.shape == (1, 1, 140, 140)
    assert float(part.low[..., 75:, :].max()) == float(part.low[..., :75, :130].min())  # 0 once normalised
    assert int(part.depth_valid.sum()) == (300 - 12) * (520 - 12)
    assert not part.depth_valid[..., 294:, :].any()
    torch.testing.assert_close(part.depth[..., :300, :520], sample.depth)


def test_naimas_low_pixels_are_as_large_as_the_scale_says() -> None:
    sample = metric_sample(96, 128)
    for scale in (3, 32):
        [part] = PROTOCOLS["naima"].prepare(sample, scale, "rgbdd", "m")
        assert part.depth is not None
        assert part.low is not None
        assert part.low.shape[-1] * scale == part.depth.shape[-1]
        assert part.low.shape[-2] * scale == part.depth.shape[-2]
    with pytest.raises(InputError, match="take a whole --scale"):
        list(PROTOCOLS["naima"].prepare(sample, 3.5, "rgbdd", "m"))


def test_dada_measures_squares_of_256_with_averaged_low_maps() -> None:
    parts = list(PROTOCOLS["dada"].prepare(metric_sample(), 8, "nyu", "m"))
    assert [p.name for p in parts] == ["x+0+0", "x+0+256"]
    first = parts[0]
    assert first.depth is not None
    assert first.low is not None
    torch.testing.assert_close(first.low[0, 0, 0, 0], first.depth[0, 0, :8, :8].mean())


def test_a_sets_own_protocol_is_taken_unasked() -> None:
    low, alone = load("bicubic"), load("symbiotic-small")
    assert [usual_protocol(low, name) for name in ("middlebury", "middlebury_noisy_x8", "tofdsr", "nyu")] == [
        "fdsr", "park", "tofdsr", "fdsr"
    ]  # fmt: skip
    assert [usual_protocol(alone, name) for name in ("nyu", "kitti", "folder")] == ["eigen", "garg", "rgb"]


def test_a_protocol_with_the_sensors_own_map_asks_for_it() -> None:
    with pytest.raises(InputError, match="crispdepth info folder"):
        list(PROTOCOLS["tofdsr"].prepare(metric_sample(), 4, "folder", "m"))


def test_every_protocol_names_kernel_border_unit_and_average() -> None:
    for row in PROTOCOLS.values():
        for unit in ("cm", "levels"):
            text = row.describe("nyu", unit)
            assert all(word in text for word in ("low map", "border", unit, "mean of per-image"))


def test_the_json_has_the_promised_shape(levels: Path, tmp_path: Path) -> None:
    result = evaluate(load("bicubic"), "middlebury", levels, 8, "fdsr", name="bicubic")
    write_json(tmp_path / "f.json", result.as_json())
    read = json.loads((tmp_path / "f.json").read_text())
    assert {"model", "set", "scale", "protocol", "unit", "metrics", "images"} <= read.keys()
    assert read["unit"] == "levels"
    assert {"rmse", "mad", "absrel", "delta1", "edge_rmse", "flying"} <= read["metrics"].keys()
    assert [i["name"] for i in read["images"]] == [f"Middlebury_{i:02d}_output" for i in range(3)]
    assert read["metrics"]["rmse"] == pytest.approx(np.mean([i["rmse"] for i in read["images"]]))


def test_a_table_prints_protocol_and_number_of_images(levels: Path) -> None:
    text = table([evaluate(load("bicubic"), "middlebury", levels, 8, "fdsr", name="bicubic")])
    assert "3 images" in text
    assert "bicubic-8bit" in text
    assert "border cut: 6 px" in text


def test_the_page_of_numbers_renews_the_readme_and_names_what_is_missing(levels: Path, tmp_path: Path) -> None:
    (tmp_path / "middlebury").symlink_to(levels)
    readme, out = tmp_path / "README.md", tmp_path / "numbers.md"
    readme.write_text("before <!-- numbers -->old<!-- end of numbers --> after")
    page = (("middlebury", "middlebury", ("fdsr",), (8.0,)), ("lu", "lu", ("fdsr",), (8.0,)))
    write_numbers(tmp_path, out, readme, page, tmp_path / "figures.json")
    assert "3 images" in json.loads((tmp_path / "figures.json").read_text())["bicubic"]["middlebury x8"]
    text, short = out.read_text(), readme.read_text()
    assert "not found under --root: lu" in text
    assert "3 images" in text
    expected = evaluate(load("bicubic"), "middlebury", levels, 8, "fdsr").metrics["rmse"]
    assert f"| `bicubic` | {expected:.2f} (1.00) |" in short
    assert short.startswith("before ")
    assert short.endswith(" after")
    assert "old" not in short
    readme.write_text("no marks")
    with pytest.raises(InputError, match="marks"):
        write_numbers(tmp_path, out, readme, page)


def test_one_model_is_measured_anew_and_the_other_rows_stay(
    levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "middlebury").symlink_to(levels)
    monkeypatch.setattr(report, "sharpeners", lambda: ["guided", "bicubic", "fgs"])
    page = (("middlebury", "middlebury", ("fdsr", "dctnet"), (8.0,)),)
    readme, out, figures = tmp_path / "README.md", tmp_path / "numbers.md", tmp_path / "figures.json"
    readme.write_text("<!-- numbers --><!-- end of numbers -->")

    def written(models: list[str]) -> list[str]:
        write_numbers(tmp_path, out, readme, page, figures, models)
        return [path.read_text() for path in (out, readme, figures)]

    hub = "depth-anything-v2-small.indoor"  # in the catalog, and nothing this page could measure
    for wrong, message in (("guidd", "guided"), (hub, hub), ("guided", "has no table 'middlebury x8, fdsr'")):
        with pytest.raises(InputError, match=message):
            written([wrong])
    whole = written([])
    assert written(["guided"]) == whole
    for path in (out, readme):  # as if both had other figures before
        lines = [re.sub(r"\d", "7", x) if "guided" in x or "fgs" in x else x for x in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    text, short, _ = written(["guided"])
    assert [row for row in (text + short).splitlines() if "guided" in row] == [
        row for row in (whole[0] + whole[1]).splitlines() if "guided" in row
    ]
    stayed = [row for row in (text + short).splitlines() if "fgs" in row]
    assert len(stayed) == 3
    assert all(set(re.findall(r"\d", row)) == {"7"} for row in stayed)
    one_less = tmp_path / "fewer"
    one_less.mkdir()
    for path in sorted(levels.iterdir()):
        if "_02_" not in path.name:
            shutil.copy(path, one_less)
    (tmp_path / "middlebury").unlink()
    with pytest.raises(InputError, match="middlebury does not exist"):
        written(["guided"])
    (tmp_path / "middlebury").symlink_to(one_less)
    with pytest.raises(InputError, match="has no table of middlebury x8, 2 images"):
        written(["guided"])
    assert out.read_text() == text  # nothing is written then


def test_metres_are_reported_in_centimetres(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (8, 8)).astype(np.float32).repeat(8, 0).repeat(8, 1)
    np.save(tmp_path / "depth" / "a.npy", depth)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "rgb" / "a.png")
    result = evaluate(load("bicubic"), "folder", tmp_path, 4, "dctnet")
    assert result.unit == "cm"
    assert result.metrics["rmse"] == pytest.approx(100 * bicubic_rmse(depth, 4, 0, False, True), abs=0.01)


def test_the_sensors_own_maps_are_reported_with_their_own_scale(tmp_path: Path) -> None:
    for part in ("rgb", "depth", "low"):
        (tmp_path / part).mkdir()
    depth = np.random.default_rng(0).uniform(1, 2, (16, 20)).astype(np.float32).repeat(4, 0).repeat(4, 1)
    np.save(tmp_path / "depth" / "a.npy", depth)
    np.save(tmp_path / "low" / "a.npy", depth[::4, ::4])
    Image.new("RGB", (80, 64)).save(tmp_path / "rgb" / "a.png")
    result = evaluate(load("bicubic"), "folder", tmp_path, 8, "park")
    assert result.scale == 4
    assert result.heading.startswith("folder x4, 1 images, protocol park")


def test_what_cannot_be_measured_is_named_and_not_averaged(tmp_path: Path) -> None:
    for part in ("rgb", "depth", "low"):
        (tmp_path / part).mkdir()
    for name, far in (("a", 2.0), ("b", 50.0)):  # protocol tofdsr measures 0.1 to 5 m
        depth = np.full((48, 64), far, np.float32)
        np.save(tmp_path / "depth" / f"{name}.npy", depth)
        np.save(tmp_path / "low" / f"{name}.npy", depth[::4, ::4])
        Image.new("RGB", (64, 48)).save(tmp_path / "rgb" / f"{name}.png")
    result = evaluate(load("bicubic"), "folder", tmp_path, protocol="tofdsr")
    assert result.heading.startswith("folder x4, 1 images (1 left out), protocol tofdsr")
    assert result.failed == ["b: no true depth is left to measure under this protocol"]


def test_an_image_of_which_a_part_fails_counts_no_part(tmp_path: Path) -> None:
    for part in ("rgb", "depth"):
        (tmp_path / part).mkdir()
    depth = np.random.default_rng(0).uniform(1, 2, (256, 512)).astype(np.float32)
    for name, empty in (("a", 0), ("b", 256), ("c", 512)):
        holed = depth.copy()
        holed[:, empty : empty + 256] = 0
        np.save(tmp_path / "depth" / f"{name}.npy", holed)
        Image.new("RGB", (512, 256)).save(tmp_path / "rgb" / f"{name}.png")
    result = evaluate(load("bicubic"), "folder", tmp_path, 8, "dada")
    assert {image["name"].partition("+")[0] for image in result.images} == {"c"}
    assert [line[:1] for line in result.failed] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("middelbury", None, 8, "fdsr"), "did you mean middlebury"),
        (("middlebury", None, 8, "fdsr"), r"--root \(root=…\)"),
        (("middlebury", Path(__file__).parent, 8, "fdsr"), "Middlebury_NN_output_color.png"),
        (("middlebury", Path("nowhere"), 8, "fdrs"), "did you mean fdsr"),
        (("middlebury", Path("nowhere"), 0.5, "fdsr"), "1 to 64"),
    ],
)
def test_a_wrong_word_is_refused_with_a_cure(arguments: tuple, cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        evaluate(load("bicubic"), *arguments)


def test_a_truth_that_8_bits_cannot_hold_is_refused_by_protocols_that_round(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for kind in ("rgb", "depth"):
        (tmp_path / kind).mkdir()
    Image.fromarray(rgb).save(tmp_path / "rgb" / "a.png")
    np.save(tmp_path / "depth" / "a.npy", np.linspace(0.1, 1, 48 * 64, dtype=np.float32).reshape(48, 64))
    with pytest.raises(InputError, match="rounds to 8 bits"):
        evaluate("bicubic", "folder", tmp_path, 4, unit="relative")
    assert evaluate("bicubic", "folder", tmp_path, 4, "dctnet", unit="relative").metrics["absrel"] < 0.05


def test_a_picture_smaller_than_the_border_is_named(tmp_path: Path) -> None:
    for kind, value in (("rgb", np.zeros((12, 12, 3), np.uint8)), ("depth", np.full((12, 12), 900, np.uint16))):
        (tmp_path / kind).mkdir()
        Image.fromarray(value).save(tmp_path / kind / "a.png")
    for scale, why in ((4, "nothing of 12x12 pixels is left"), (16, "take a smaller scale")):
        with pytest.raises(InputError, match=f"no pair of folder could be measured; the first: a: {why}|{why}"):
            evaluate("bicubic", "folder", tmp_path, scale, unit="mm")

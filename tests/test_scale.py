"""Large jobs: killed anywhere, on an object store, on a cluster: the same files, none twice, none half."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_atomic import read_only
from test_cli import crispdepth, refused
from test_crisp import shuffled

from crispdepth.engines import Wanted
from crispdepth.io import read_depth
from crispdepth.job import Settings
from crispdepth.models.crisp import TINY_CONFIG
from crispdepth.scale import session, stores
from crispdepth.scale.bulk import run_bulk
from crispdepth.scale.overlap import overlapped
from crispdepth.scale.plan import Item, find, has_pictures
from crispdepth.scale.session import Bulk
from crispdepth.scale.stores import Store
from crispdepth.types import InputError

KINDS = ("low", "rgb")


def frames(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """``count`` small frames that all differ, in two subfolders; those in ``bad`` are no pictures."""
    for i in range(count):
        low = np.full((6, 8), 1000 + i, dtype=np.uint16)
        low[:, 4:] = 2000 + 3 * i
        rgb = np.full((24, 32, 3), 40, dtype=np.uint8)
        rgb[:, 16:] = 200
        for kind, array in zip(KINDS, (low, rgb), strict=True):
            path = folder / kind / f"{'ab'[i % 2]}" / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(array)).save(path)
            if i in bad and kind == "low":
                path.write_bytes(b"no picture")
    return folder


def job(source: object, target: object, model: str = "fgs", chunk: int = 3) -> Bulk:
    return Bulk(str(source), str(target), model, Settings(unit="mm"), chunk=chunk)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(data: bytes) -> list[dict[str, Any]]:
    return pq.read_table(pa.BufferReader(data)).to_pylist()


def test_a_folder_becomes_depth_a_manifest_and_reasons(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 8, bad=(3,))
    (source / "rgb" / "a" / "004.png").unlink()
    counts = run_bulk(job(source, tmp_path / "out"))
    assert counts == {"done": 6, "quarantined": 2}
    out = files(tmp_path / "out")
    names = {f"depth/{'ab'[i % 2]}/{i:03d}.png" for i in (0, 1, 2, 5, 6, 7)}
    assert set(out) == {*names, "job.json", "manifest.parquet", "quarantine.jsonl"}
    told = {row["name"]: row for row in rows(out["manifest.parquet"])}
    for name in names:
        row = told[name.removeprefix("depth/").removesuffix(".png")]
        assert (row["status"], row["out"], row["bytes"]) == ("done", name, len(out[name]))
        assert row["sha256"] == hashlib.sha256(out[name]).hexdigest()
        assert (row["width"], row["height"]) == (32, 24)
    reasons = [json.loads(line) for line in out["quarantine.jsonl"].decode().splitlines()]
    assert [r["name"] for r in reasons] == ["a/004", "b/003"]
    assert "no partner of that name in rgb" in reasons[0]["reason"]
    assert str(source / "low" / "b" / "003.png") in reasons[1]["reason"]
    assert np.median(read_depth(tmp_path / "out" / "depth" / "b" / "007.png", "mm").depth[:, 20:]) == pytest.approx(
        2.021, abs=0.003
    )


def test_folders_may_be_called_depth_and_color(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 2)
    (source / "low").rename(source / "depth")
    (source / "rgb").rename(source / "color")
    assert has_pictures(str(source))
    assert all(item.rgb is not None and item.fault is None for item in find(str(source)))


def test_it_says_the_same_as_predict(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 1)
    run_bulk(job(source, tmp_path / "out"))
    words = ["--low", source / "low/a/000.png", "--rgb", source / "rgb/a/000.png", "--unit", "mm", "--model", "fgs"]
    assert crispdepth("predict", *words, "-o", tmp_path / "one.png").returncode == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / "depth" / "a" / "000.png").read_bytes()


def test_without_pictures_the_model_is_the_one_for_depth_alone(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 2)
    assert has_pictures(str(source))
    low = [str(source / "low" / "a" / "000.png"), str(source / "low" / "b" / "001.png")]
    pq.write_table(pa.table({"low": low, "name": ["a", "b"]}), tmp_path / "list.parquet")
    assert not has_pictures(str(tmp_path / "list.parquet"))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(low[0], "k.low.png")
    assert not has_pictures(str(tmp_path / "x.tar"))
    shutil.rmtree(source / "rgb")
    assert not has_pictures(str(source))
    done = crispdepth("batch", source, tmp_path / "out", "--unit", "mm", "--scale", 2)
    assert done.returncode == 0, done.stderr
    assert "model    ctkt" in done.stdout
    assert re.search(r"^engine   torch, cpu, (float32: no 16-bit units|bf16: this CPU)", done.stdout, re.MULTILINE)
    assert read_depth(tmp_path / "out" / "depth" / "a" / "000.png", "mm").depth.shape == (12, 16)
    for missing in ("none.parquet", "none.tar", "none"):
        with pytest.raises(InputError, match="no such"):
            has_pictures(str(tmp_path / missing))


def test_each_worker_runs_what_was_asked_for(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 1)
    bulk = replace(job(source, tmp_path / "16"), model="crisp", wanted=Wanted("torch", "cpu", "bf16"))
    run_bulk(bulk)
    full = Wanted("torch", "cpu", "float32")
    run_bulk(replace(bulk, target=str(tmp_path / "32"), wanted=full))
    results = [read_depth(tmp_path / name / "depth" / "a" / "000.png", "mm").depth for name in ("16", "32")]
    assert 0 < np.abs(results[0] - results[1]).mean() < 0.01
    assert json.loads((tmp_path / "16" / "job.json").read_text())["precision"] == "bf16"
    with pytest.raises(InputError, match="holds a job with precision=bf16: ask the same"):
        run_bulk(replace(bulk, wanted=full))
    with pytest.raises(InputError, match="runs on the cpu here"):
        run_bulk(replace(bulk, target=str(tmp_path / "gpu"), wanted=Wanted("onnx", "cuda")))


# ------------------------------------------------------------------------------- kills


@pytest.mark.slow
def test_killed_before_a_change_of_the_disk_it_ends_with_the_same_files(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 3, bad=(2,))
    run_bulk(job(source, tmp_path / "whole", "bicubic", chunk=2))
    expected = files(tmp_path / "whole")
    (tmp_path / "kills").mkdir()
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(source), str(tmp_path / "kills"), "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kills = done.stdout.splitlines()
    assert len(kills) > 8
    for number, line in enumerate(kills):
        for name, data in json.loads(line).items():  # what is there after a kill is whole
            assert bytes.fromhex(data) == expected[name.partition("/")[2]], name
        assert files(tmp_path / "kills" / str(4 * number)) == expected, number


def test_parts_of_a_finished_job_are_none_of_the_next_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def remove(store: Store, name: str) -> None:
        if name == session.WORK and store.exists("manifest.parquet"):
            raise Killed  # between what tells that the job is finished and the last of its parts
        removed(store, name)

    source, removed = frames(tmp_path / "in", 4), Store.remove
    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(Killed):
        run_bulk(job(source, tmp_path / "out", chunk=1))
    monkeypatch.undo()
    expected = {name: data for name, data in files(tmp_path / "out").items() if name.startswith("depth/")}
    for name in list(expected)[:3]:
        (tmp_path / "out" / name).unlink()
    assert run_bulk(job(source, tmp_path / "out", chunk=1)) == {"done": 4}
    assert {name: data for name, data in files(tmp_path / "out").items() if name.startswith("depth/")} == expected


def test_what_is_committed_is_not_done_again(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 9)
    seen: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def stop(behind: int, total: int, done: object) -> None:
        seen.append((behind, total))
        if behind == 6:
            raise Stop

    with pytest.raises(Stop):
        run_bulk(job(source, tmp_path / "out"), progress=stop)
    for path in (source / "low" / "a").iterdir():  # the committed ones are gone from the source meanwhile
        if path.stem in ("000", "002", "004", "006", "008"):
            path.unlink()
    assert run_bulk(job(source, tmp_path / "out")).total() == 9
    assert run_bulk(job(source, tmp_path / "out")).total() == 9  # finished: nothing to do
    assert [behind for behind, _ in seen] == [0, 3, 6]


def test_a_folder_belongs_to_one_job(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        run_bulk(job(source, tmp_path / "mine"))
    run_bulk(job(source, tmp_path / "out"))
    with pytest.raises(InputError, match=r"holds a job with model=fgs.*: ask the same to go on, or name a new folder"):
        run_bulk(job(source, tmp_path / "out", model="bicubic"))
    with pytest.raises(InputError, match="a job with chunk=3, unit=mm, no scale: ask"):
        run_bulk(Bulk(str(source), str(tmp_path / "out"), "fgs", Settings(unit="tum", scale=2), chunk=4))
    sized = Bulk(str(source), str(tmp_path / "sized"), "fgs", Settings(unit="mm", size=(24, 32)))
    run_bulk(sized)
    with pytest.raises(InputError, match="a job with size=32x24: ask"):
        run_bulk(replace(sized, settings=Settings(unit="mm")))


def test_a_folder_nobody_can_write_to_is_refused_at_once() -> None:
    with read_only() as folder:
        for target in (folder, folder / "new"):
            with pytest.raises(InputError, match=f"folder {folder} is read-only; choose another one"):
                run_bulk(job("in", target))


def test_a_wrong_question_stops_at_once(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 40)
    with pytest.raises(InputError, match=r"none of the items tried can be done: a/000.*--unit"):
        run_bulk(Bulk(str(source), str(tmp_path / "out"), "fgs", Settings()))
    assert not (tmp_path / "out").exists()  # so the right question may have the folder
    assert run_bulk(job(source, tmp_path / "out", "bicubic", chunk=64)) == {"done": 40}


def test_the_first_items_settle_the_scale_of_the_confidence(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 2)
    for i, name in enumerate(("a/000.png", "b/001.png")):  # 0..2, and 0..254: the first is of 255 too
        path = source / "confidence" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((6, 8), (2, 254)[i], np.uint8)).save(path)
    assert run_bulk(job(source, tmp_path / "out", "bicubic")) == {"done": 1, "quarantined": 1}
    assert "a/000.png: no reading is trusted" in (tmp_path / "out/quarantine.jsonl").read_text()


def test_a_full_disk_is_no_fault_of_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(tmp_path / "in", 4)

    def full(*_: object) -> None:
        raise InputError("a.png: the disk is full") from OSError(28, "No space left on device")

    monkeypatch.setattr(session, "write_all", full)
    with pytest.raises(InputError, match="disk is full"):
        run_bulk(job(source, tmp_path / "out"))
    monkeypatch.undo()
    assert run_bulk(job(source, tmp_path / "out")) == {"done": 4}


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 4)

    def another(behind: int, total: int, done: object) -> None:
        with pytest.raises(InputError, match="another process is at work"):
            run_bulk(job(source, tmp_path / "out"))

    assert run_bulk(job(source, tmp_path / "out"), progress=another) == {"done": 4}


# ------------------------------------------------------------------------------- sources


def test_a_parquet_list_names_its_files_and_a_manifest_its_bad_ones(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 4, bad=(2,))
    low = [f"low/{'ab'[i % 2]}/{i:03d}.png" for i in range(4)]
    table = pa.table({"low": low, "rgb": [name.replace("low", "rgb") for name in low], "name": list("wxyz")})
    pq.write_table(table, source / "list.parquet")
    assert run_bulk(job(source / "list.parquet", tmp_path / "out")) == {"done": 3, "quarantined": 1}
    assert {p.name for p in (tmp_path / "out" / "depth").iterdir()} == {"w.png", "x.png", "z.png"}
    again = list(find(str(tmp_path / "out" / "manifest.parquet")))
    assert again == [Item("y", str(source / low[2]), str(source / low[2].replace("low", "rgb")))]


def test_a_partner_that_was_missing_is_looked_for_again(tmp_path: Path) -> None:
    source, manifest = frames(tmp_path / "in", 4), tmp_path / "out" / "manifest.parquet"
    low, rgb = source / "low" / "a" / "002.png", source / "rgb" / "b" / "003.png"
    low.rename(tmp_path / "low.png")
    rgb.rename(tmp_path / "rgb.png")
    run_bulk(job(source, tmp_path / "out"))
    again = ["batch", manifest, tmp_path / "again", "--unit", "mm", "--model", "fgs"]
    refused(crispdepth(*again), rf"a/002: has no partner {source}/low/a/002\.\*: supply it$")
    refused(crispdepth("batch", manifest, tmp_path / "other", "--unit", "mm"), "its job had --model fgs, not crisp")
    refused(crispdepth("batch", source, tmp_path / "other", "--unit", "mm", "--suffix", ".jpg"), r"use one of \.png")
    assert not (tmp_path / "other").exists()
    (tmp_path / "rgb.png").rename(rgb.with_name("003_rgb.png"))
    assert has_pictures(str(manifest))
    assert crispdepth(*again).returncode == 1
    assert {p.name for p in (tmp_path / "again" / "depth").rglob("*.png")} == {"003.png"}
    (tmp_path / "low.png").rename(low)
    assert run_bulk(job(tmp_path / "again" / "manifest.parquet", tmp_path / "third")) == {"done": 1}


def test_reasons_name_no_option_that_batch_lacks(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 1)
    pq.write_table(pa.table({"low": ["low/a/000.png"]}), source / "list.parquet")
    for words, cure in (
        ([], "pass --size WxH or --scale S, or its rgb$"),
        (["--scale", 2, "--min-confidence", 0.5], "--min-confidence is for .*: add its confidence$"),
    ):
        refused(crispdepth("batch", source / "list.parquet", tmp_path / "out", "--unit", "mm", *words), cure)


def test_a_damaged_list_or_one_without_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"low": ["a.png", "b.png"]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 20 + content[24:])  # the page's own header
    with pytest.raises(InputError, match=r"list\.parquet: is no Parquet file, or damaged"):
        list(find(str(path)))
    pq.write_table(pa.table({"low": [1, 2]}), path)
    with pytest.raises(InputError, match="column low is int64, not text"):
        list(find(str(path)))


def test_a_tar_is_read_where_it_lies(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 3)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for i in range(3):
            for kind in KINDS:
                tar.add(source / kind / "ab"[i % 2] / f"{i:03d}.png", f"{'ab'[i % 2]}/{i:03d}.{kind}.png")
        tar.add(source / "rgb" / "a" / "000.png", "alone.jpg")
    assert run_bulk(job(tmp_path / "shard.tar", tmp_path / "tarred")) == {"done": 3, "quarantined": 1}
    run_bulk(job(source, tmp_path / "out"))
    assert files(tmp_path / "tarred" / "depth") == files(tmp_path / "out" / "depth")


def tar_of(path: Path, names: list[str]) -> Path:
    """A tar with one small picture under all these names."""
    picture = path.with_name("picture.png")
    Image.fromarray(np.ones((6, 8), np.uint16)).save(picture)
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.add(picture, name)
    return path


def test_neighbours_in_a_tar_with_one_key_in_two_folders_are_two_items(tmp_path: Path) -> None:
    names = [f"{folder}/000.{kind}.png" for folder in "ab" for kind in KINDS]
    items = list(find(str(tar_of(tmp_path / "x.tar", names))))
    assert [(item.name, item.fault) for item in items] == [("a/000", None), ("b/000", None)]
    assert len({url for item in items for url in (item.low, item.rgb)}) == 4


def test_a_picture_in_a_tar_may_be_a_png_without_another_word(tmp_path: Path) -> None:
    tar = str(tar_of(tmp_path / "x.tar", ["k.png", "k.depth.png"]))
    assert has_pictures(tar)
    (item,) = find(tar)
    assert item.low is not None
    assert item.rgb is not None
    assert item.low != item.rgb


def test_tars_that_repeat_keys_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in "01":
        tar_of(tmp_path / "shards" / f"{name}.tar", ["k.png", "k.depth.png"])
    with pytest.raises(InputError, match=r"two items are called k: .*1\.tar repeats.*a job of its own"):
        list(find(str(tmp_path / "shards")))


def test_the_command_does_what_its_options_say(tmp_path: Path) -> None:
    low = np.full((12, 16), 2.0, np.float32)
    low[:, 8:] = 3
    low[5, 2:12] = np.nan
    for kind, array in (
        ("low", low),
        ("rgb", np.repeat(np.where(np.arange(64) < 36, 40, 200).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)),
        ("confidence", np.where(np.arange(192) % 7 == 0, 20, 60).astype(np.uint8).reshape(12, 16)),
    ):
        (tmp_path / "in" / kind).mkdir(parents=True)
        path = tmp_path / "in" / kind / "a.npy"
        np.save(path, array) if kind == "low" else Image.fromarray(array).save(path.with_suffix(".png"))
    words = ["--unit", "m", "--model", "fgs", "--nan-holes", "--min-confidence", 0.3, "--confidence-max", 100]
    words += ["--max-hole-px", 3, "--align", "auto"]
    done = crispdepth("batch", tmp_path / "in", tmp_path / "out", *words, "--suffix", ".npy")
    assert done.returncode == 0, done.stderr
    look = crispdepth("batch", tmp_path / "in", tmp_path / "other", "--align", "look")
    assert look.returncode == 2
    assert "only tells" in look.stderr
    asked = json.loads((tmp_path / "out" / "job.json").read_text())
    told = {"nan_holes": True, "min_confidence": 0.3, "confidence_max": 100, "max_hole_px": 3, "align": "auto"}
    assert {word: asked[word] for word in told} == told
    one = [f"--{kind}={tmp_path}/in/{kind}/a{'.npy' if kind == 'low' else '.png'}" for kind in (*KINDS, "confidence")]
    done = crispdepth("predict", *one, *words, "-o", tmp_path / "one.npy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "depth" / "a.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()


def test_a_job_belongs_to_the_values_of_its_weights(tmp_path: Path) -> None:
    source, weights = frames(tmp_path / "in", 1), tmp_path / "crisp.safetensors"
    network = shuffled(TINY_CONFIG)
    network.save(weights)
    run_bulk(job(source, tmp_path / "out", str(weights)))
    with torch.no_grad():
        next(network.parameters()).add_(0.5)
    network.save(weights)
    with pytest.raises(InputError, match="holds a job with other weights"):
        run_bulk(job(source, tmp_path / "out", str(weights)))


@pytest.mark.parametrize(
    ("names", "cure"),
    [(["../a"], "cannot name a file"), (["/a"], "cannot name"), (["a", "a"], "rename one"), ([], "nothing to do")],
)
def test_a_list_with_unusable_names_is_refused(tmp_path: Path, names: list[str], cure: str) -> None:
    table = pa.table({"low": pa.array(["x.png"] * len(names), pa.string()), "name": pa.array(names, pa.string())})
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(InputError, match=cure):
        run_bulk(job(tmp_path / "list.parquet", tmp_path / "out"))


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["nowhere", "out"], "no such folder"),
        (["nowhere.parquet", "out"], "no such file"),
        (["in", "http://host/out"], "results go to a folder"),
        (["in", "memory://out"], "results go to a folder"),
        (["in", "nonsense://out"], "give a folder, or a URL"),
        (["in", "out", "--chunk", 0], "at least 1"),
        (["in", "in/low/a/000.png"], r"in/low/a/000\.png is a file; name a folder"),
        (["empty", "new/out"], "there is nothing to do"),
        (["frames.tar.gz", "out"], r"a \.tar\.gz must be unpacked to \.tar"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], cure: str) -> None:
    frames(tmp_path / "in", 1)
    (tmp_path / "frames.tar.gz").write_bytes(b"packed")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    refused(crispdepth("batch", *words), cure)
    assert set(tmp_path.rglob("*")) == before


def test_the_command_counts_and_exits_with_1_for_a_bad_item(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", 3, bad=(1,))
    done = crispdepth("batch", source, tmp_path / "out", "--unit", "mm", "--model", "bicubic")
    assert (done.returncode, "2 of 3 items done" in done.stdout) == (1, True)
    assert "quarantined 1" in done.stderr


def test_few_items_are_in_hand_and_their_order_stays() -> None:
    begun: list[int] = []
    written: list[str] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            begun.append(number)
            assert len(begun) - len(written) <= 2 * 3 + 2
            yield number

    made = overlapped(numbers(), lambda x: x + 1, lambda x: 2 * x, str, ahead=3)
    for text in made:
        written.append(text)
    assert written == [str(2 * (x + 1)) for x in range(50)]


def test_reading_and_writing_go_on_while_the_model_works() -> None:
    read_ahead, worked_on = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            read_ahead.set()
        return number

    def work(number: int) -> int:
        assert number != 0 or read_ahead.wait(5), "the second item is read while the first is worked on"
        if number == 1:
            worked_on.set()
        return number

    def write(number: int) -> int:
        assert number != 0 or worked_on.wait(5), "the second item is worked on while the first is written"
        return number

    assert list(overlapped(range(4), read, work, write)) == [0, 1, 2, 3]


def test_a_file_is_moved_into_its_place_never_written_there(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "depth" / "a.png"
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    staged.write_bytes(b"new")
    whole = staged.stat().st_ino
    with target.open("rb") as opened:
        Store(str(tmp_path)).put(staged, "depth/a.png")
        assert opened.read() == b"the old one"  # a copy would show through here, half of it after a kill
    assert target.stat().st_ino == whole
    assert not staged.exists()


# ------------------------------------------------------------------------------- an object store, a cluster


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a server that speaks S3, in this process."""
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    boto3 = pytest.importorskip("boto3")
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="frames")
    yield "s3://frames"
    server.stop()
    stores._filesystem.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what speaks S3, not of us
def test_an_object_store_holds_the_same_files(tmp_path: Path, bucket: str) -> None:
    source = frames(tmp_path / "in", 5, bad=(2,))
    store = Store(bucket)
    store.fs.put(str(source) + "/", "frames/in/", recursive=True)
    run_bulk(job(source, tmp_path / "out"))

    class Stop(Exception):
        pass

    def stop(behind: int, total: int, done: object) -> None:
        if behind == 3:
            raise Stop

    target = f"{bucket}/out"
    with pytest.raises(Stop):
        run_bulk(job(f"{bucket}/in", target), progress=stop)
    assert Store(target).exists("_work/part-00000000.parquet")
    assert run_bulk(job(f"{bucket}/in", target)) == {"done": 4, "quarantined": 1}
    expected = files(tmp_path / "out")
    found = Store(target)
    assert set(found.names()) == set(expected)
    for name in expected:
        if name.startswith("depth/"):
            assert found.read(name) == expected[name]
    told = rows(found.read("manifest.parquet"))
    assert [row["sha256"] for row in told] == [row["sha256"] for row in rows(expected["manifest.parquet"])]
    assert told[0]["low"] == "s3://frames/in/low/a/000.png"
    assert json.loads(found.read("quarantine.jsonl"))["low"] in json.loads(found.read("quarantine.jsonl"))["reason"]
    with pytest.raises(InputError, match="check the names of the folders"):
        run_bulk(job(source, "s3://nowhere/out"))
    errors = pytest.importorskip("botocore.exceptions")
    assert stores.is_of_the_store(errors.EndpointConnectionError(endpoint_url="there"))

"""What goes wrong while files are worked on: nothing lost, nothing half-written, the summary says which and why."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from depth_files import png

from crispdepth.batch import Job, Settings, pair, run, run_all, run_video
from crispdepth.io import read_depth
from crispdepth.models import saved
from crispdepth.models.catalog import WEIGHTS, load
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.types import InputError

LOW = np.full((12, 16), 1500, dtype=np.uint16)
RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def frames(folder: Path, count: int) -> tuple[Path, Path, Path]:
    """Folders of depth and pictures, 000.png …, and an empty one for results."""
    low, rgb, out = (folder / name for name in ("low", "rgb", "out"))
    for each in (low, rgb, out):
        each.mkdir()
    for i in range(count):
        (low / f"{i:03d}.png").write_bytes(png(LOW))
        (rgb / f"{i:03d}.png").write_bytes(png(RGB))
    return low, rgb, out


def test_a_corrupt_frame_57_of_100_is_named_and_the_99_others_are_there(tmp_path: Path) -> None:
    low, rgb, out = frames(tmp_path, 100)
    whole = (low / "057.png").read_bytes()
    (low / "057.png").write_bytes(whole[:40] + b"\xff" + whole[41:])
    for work in (run_all, run_video):
        failures = work(pair(Job(low, out, rgb))[0], load("bicubic"), Settings(unit="mm"))
        assert len(failures) == 1
        assert "057.png" in failures[0]
        assert "checksum" in failures[0]
        assert len(list(out.iterdir())) == 99
        for path in out.iterdir():
            path.unlink()


def test_empty_files_loops_and_changing_sizes(tmp_path: Path) -> None:
    low, rgb, out = frames(tmp_path, 6)
    (low / "001.png").write_bytes(b"")
    (low / "002.png").unlink()
    (low / "002.png").symlink_to(low / "002.png")
    (low / "003.png").write_bytes(png(np.full((24, 32), 900, np.uint16)))  # another sensor from here on
    (rgb / "004.png").write_bytes(png(RGB[:24, :32]))
    (rgb / "005.png").write_bytes(png(RGB[:, :20]))  # another shape than its depth
    for pattern in (low, low / "*.png"):
        jobs, lonely = pair(Job(pattern, out, rgb))
        failures = run_video(jobs, load("bicubic"), Settings(unit="mm"))
        assert not lonely
        assert [name for line in failures for name in ("001", "002", "005") if name in line] == ["001", "002", "005"]
        assert "0 bytes" in failures[0]
        assert "leads back to itself; remove it" in failures[1]
        assert "crop them to the same view" in failures[2]
        shapes = {p.name: read_depth(p, "mm").depth.shape for p in out.iterdir()}
        assert shapes == {"000.png": (48, 64), "003.png": (48, 64), "004.png": (24, 32)}


def test_a_result_takes_the_place_of_a_link_that_leads_back_to_itself(tmp_path: Path) -> None:
    low, rgb, out = frames(tmp_path, 1)
    (out / "o.png").symlink_to(out / "o.png")
    run(Job(low / "000.png", out / "o.png", rgb / "000.png"), load("bicubic"), Settings(unit="mm"))
    assert read_depth(out / "o.png", "mm").depth.shape == (48, 64)


def test_a_folder_that_leads_into_itself_is_no_trap(tmp_path: Path) -> None:
    low, rgb, out = frames(tmp_path, 2)
    (low / "again").symlink_to(low)
    jobs, _ = pair(Job(low, out, rgb))
    assert run_all(jobs, load("bicubic"), Settings(unit="mm")) == []


def test_names_with_blanks_and_any_script(tmp_path: Path) -> None:
    names = ["mein Bild", "深度 1", "ÅÄÖ", "emoji 🛋", "quote's", "dash—"]
    low, rgb, out = frames(tmp_path, 0)
    for name in names:
        (low / f"{name}.png").write_bytes(png(LOW))
        (rgb / f"{name}.png").write_bytes(png(RGB))
    jobs, lonely = pair(Job(low, out, rgb))
    assert run_all(jobs, load("bicubic"), Settings(unit="mm")) == []
    assert not lonely
    assert sorted(p.stem for p in out.iterdir()) == sorted(names)


@pytest.mark.parametrize("model", ["crisp", "guided", "bicubic"])
def test_one_pixel_of_depth_and_depth_larger_than_the_picture(tmp_path: Path, model: str) -> None:
    (tmp_path / "one.png").write_bytes(png(LOW[:1, :1]))
    (tmp_path / "large.png").write_bytes(png(np.full((96, 128), 1500, np.uint16)))
    (tmp_path / "rgb.png").write_bytes(png(RGB))
    for name in ("one", "large"):
        job = Job(tmp_path / f"{name}.png", tmp_path / f"{name}_out.png", tmp_path / "rgb.png")
        lines = run(job, load(model), Settings(unit="mm"))
        result = read_depth(job.out, "mm")
        assert result.depth.shape == (48, 64)
        np.testing.assert_allclose(result.depth, 1.5, atol=0.03)
        assert any("larger than the picture: --scale 1" in line for line in lines) == (name == "large")


WORK = """
import sys
from pathlib import Path
from crispdepth.batch import Job, Settings, pair, run_all
from crispdepth.models.catalog import load
import resource
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
root = Path(sys.argv[1])
jobs, _ = pair(Job(root / "low", root / "out", root / "rgb"))
print("ready", flush=True)
for line in run_all(jobs, load("bicubic"), Settings(unit="mm")):
    print(line)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")
def test_a_full_disk_is_said_for_each_file_and_leaves_none_behind(tmp_path: Path) -> None:
    low, _, out = frames(tmp_path, 3)
    rough = np.random.default_rng(1).integers(500, 5000, (12, 16)).astype(np.uint16)
    for i in (0, 2):
        (low / f"{i:03d}.png").write_bytes(png(rough))  # these compress badly; the flat one fits
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path), "1000"], capture_output=True, text=True, timeout=60, check=True
    )
    failures = done.stdout.splitlines()[1:]
    assert len(failures) == 2
    assert all("the disk is full" in line for line in failures)
    assert "000.png" in failures[0]
    assert "002.png" in failures[1]
    assert [p.name for p in out.iterdir()] == ["001.png"]


@pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")
def test_killed_in_the_middle_every_file_is_whole_or_absent_and_a_second_run_completes(tmp_path: Path) -> None:
    low, rgb, out = frames(tmp_path, 400)
    process = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path), "0"], stdout=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while len(list(out.glob("[0-9]*.png"))) < 5 and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    seen = [p for p in out.iterdir() if not p.name.startswith(".")]
    assert 5 <= len(seen) < 400
    for path in seen:
        assert read_depth(path, "mm").depth.shape == (48, 64)
    for path in list(low.iterdir())[:390]:
        path.unlink()
    jobs, _ = pair(Job(low, out, rgb))
    assert run_all(jobs, load("bicubic"), Settings(unit="mm")) == []
    assert all((out / job.out.name).is_file() for job in jobs)


# ------------------------------------------------------------------------------- checkpoints


def weights(path: Path, change: dict | None = None, body: bytes | None = None) -> Path:
    """A file of Crisp's weights whose header is changed."""
    if not path.exists():
        Crisp(TINY_CONFIG).save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.update(change or {})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if body is None else body))
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(str(path))
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_hostile_headers_of_weights_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for content in (b"", b"x", b"\xff" * 8 + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 10**9) + b"{}"):
        path.write_bytes(content)
        refused(path)
    nested = b"[" * 10**5
    path.write_bytes(struct.pack("<Q", len(nested)) + nested)
    refused(path)
    path.unlink()
    giant = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    assert "bytes" in refused(weights(path, {"giant": giant})) or "size" in refused(path)
    path.unlink()
    assert "fewer or more bytes" in refused(weights(path, body=b"1234"))
    path.unlink()
    for words in ({"widths": [10**6] * 4}, {"rounds": 10**12}, {"encoder": [4096] * 65}, {"nonsense": 1}):
        text = json.dumps(json.loads(json.dumps(TINY_CONFIG.__dict__)) | words)
        refused(weights(path, {"__metadata__": {"model": "crisp", "config": text}}))
    wide = json.dumps(TINY_CONFIG.__dict__ | {"widths": [16000, 16000, 16000, 16000]})  # 20 GB, were it built
    assert "differ from its config" in refused(weights(path, {"__metadata__": {"model": "crisp", "config": wide}}))


def test_good_weights_pass_the_checks(tmp_path: Path) -> None:
    path = weights(tmp_path / "w.safetensors")
    assert isinstance(load(str(path)), Crisp)
    words, shapes = saved.header(WEIGHTS / "crisp.safetensors")
    assert words["model"] == "crisp"
    assert shapes == {k: tuple(v.shape) for k, v in load("crisp").state_dict().items()}
    assert all(x.device == torch.device("cpu") for x in load("crisp").parameters())

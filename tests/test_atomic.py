"""atomic: all of a file or none of it; an output that cannot be is refused before any work."""

from __future__ import annotations

import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from depth_files import png, ramp

from crispdepth import io
from crispdepth.atomic import atomic, check_folder, check_output
from crispdepth.types import InputError


def test_a_failure_or_ctrl_c_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_text("old")

    def fail(error: type[BaseException]) -> None:
        with atomic(target) as temporary:
            temporary.write_text("new")
            assert temporary.suffix == ".png"
            assert temporary.name.startswith(".")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_several_outputs_appear_all_or_none(tmp_path: Path) -> None:
    names = [tmp_path / "a.png", tmp_path / "b.exr", tmp_path / "c.ply"]

    def write(count: int) -> None:
        with ExitStack() as stack:
            first, second, third = (stack.enter_context(atomic(name)) for name in names)
            io.write_depth(first, ramp())
            io.write_depth(second, ramp())
            assert not any(name.exists() for name in names)
            io.write_points(third, np.ones((count, 3), np.float32))

    with pytest.raises(InputError, match=r"c\.ply: no point to write"):
        write(0)
    assert list(tmp_path.iterdir()) == []
    write(3)
    assert sorted(tmp_path.iterdir()) == names


def test_written_files_keep_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        io.write_depth(tmp_path / "a.png", ramp())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "deep" / "real.png")
    io.write_depth(tmp_path / "link.png", ramp())
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "deep" / "real.png").is_file()


def test_a_full_disk_is_a_clean_error_without_leftovers(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).random((200, 200)) + 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for suffix in (".png", ".exr"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # a write beyond fails as on a full disk
        try:
            with pytest.raises(InputError, match=rf"a\{suffix}: .*disk is full"):
                io.write_depth(tmp_path / f"a{suffix}", depth)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_when_writing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: cannot be written: its folder does not exist"):
        io.write_depth(tmp_path / "none" / "a.png", ramp())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="folder does not exist"):
        io.write_depth(tmp_path / "file" / "a.png", ramp())
    with pytest.raises(InputError, match="is a folder"), atomic("/"):
        pass
    with pytest.raises(InputError, match="too long"):
        io.write_depth(tmp_path / ("x" * 300 + ".png"), ramp())


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    given_file = tmp_path / "in.png"
    given_file.write_bytes(png(np.ones((2, 2), np.uint16)))
    (tmp_path / "link.png").symlink_to(given_file)
    os.link(given_file, tmp_path / "hard.png")
    (tmp_path / "dir.png").mkdir()
    cases: list[tuple[str | Path, str]] = [
        (tmp_path / "none" / "a.png", "does not exist"),
        (tmp_path / "a.jpg", "unknown extension"),
        (tmp_path / "a", "has no extension"),
        (tmp_path / "dir.png", "is a folder"),
        (given_file, "also an input"),
        (tmp_path / "link.png", "also an input"),
        (tmp_path / "hard.png", "also an input"),
        (tmp_path / "." / "dir.png" / ".." / "in.png", "also an input"),
        ("a\0.png", "no usable path"),
    ]
    for path, words in cases:
        with pytest.raises(InputError, match=words):
            check_output(path, [None, given_file], io.DEPTH_SUFFIXES)
    check_output(tmp_path / "fine.png", [given_file], [".png"])
    check_output(tmp_path / "fine.ply", [], [".ply"])


@contextmanager
def read_only() -> Iterator[Path]:
    """A folder that we may read, but not write to."""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is root's alone where root runs the tests
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)  # root may write anywhere, so be nobody for a moment
        try:
            yield Path(folder)
        finally:
            if root:
                os.setresuid(0, 0, 0)


def test_a_read_only_folder_is_refused() -> None:
    with read_only() as folder:
        with pytest.raises(InputError, match="read-only"):
            check_output(folder / "a.png", [], [".png"])
        for path in (folder, folder / "new" / "newer"):
            with pytest.raises(InputError, match=f"folder {folder} is read-only; choose another one"):
                check_folder(path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", tmp_path / "a" / "new"):
        with pytest.raises(InputError, match=f"{tmp_path}/a is a file; name a folder"):
            check_folder(path)
    check_folder(tmp_path / "b" / "new")
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder closed even to root")
def test_a_closed_folder_is_refused_even_for_root() -> None:
    with pytest.raises(InputError, match=r"read-only|does not exist"):
        check_output("/proc/self/a.png", [], [".png"])
    with pytest.raises(InputError, match=r"read-only|does not exist"):
        io.write_depth("/proc/self/a.png", ramp())

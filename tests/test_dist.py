"""What is given away: source archive and wheel hold what they must, and the wheel works on its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from test_batch import write_inputs

ROOT = Path(__file__).resolve().parents[1]
PHONE = ROOT.parent / "shared" / "data" / "lidar"
NO_NETWORK = """
import sys
def refuse(event, words):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"the network is cut: {event} {words}")
sys.addaudithook(refuse)
import crispdepth
print(crispdepth.__file__)
from crispdepth.cli import main
main()
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make dist`: the source archive of what git tracks, and the wheel built from that archive."""
    folder = tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    copy = folder / "source"  # building writes beside the sources, and other tests read those
    for name in filter(None, listed.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_wheel_and_source_archive_hold_weights_cards_types_and_licence(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        sources = [name.partition("/")[2] for name in archive.getnames()]
    listed = subprocess.run(["git", "ls-files", "-z", "src"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    ours = {name.removeprefix("src/") for name in filter(None, listed.split("\0")) if (ROOT / name).is_file()}
    assert {"crispdepth/py.typed", "crispdepth/weights/crisp.md"} <= ours
    assert ours == {name for name in names if name.startswith("crispdepth/")}
    assert ours <= {name.removeprefix("src/") for name in sources}
    assert all(f"{p.stem}.md" in str(names) for p in (ROOT / "src/crispdepth/weights").glob("*.safetensors"))
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert "Typing :: Typed" in metadata


def test_the_wheel_predicts_from_another_folder_without_network(dist: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*pip, str(next(dist.glob("*.whl")))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    low, rgb = write_inputs(tmp_path / "mine")
    code = f"import sys; sys.path.insert(0, {str(target)!r})\n{NO_NETWORK}"
    words = ["predict", "--low", str(low), "--unit", "mm", "--rgb", str(rgb), "-o", str(tmp_path / "sharp.png")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert "model    crisp" in done.stdout
    assert (tmp_path / "sharp.png").is_file()


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment_sharpens_the_phones_depth_with_the_network_cut(
    dist: Path, tmp_path: Path
) -> None:
    if not PHONE.is_dir():
        pytest.skip("needs ../shared/data/lidar")
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "empty")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run([*pip, str(next(dist.glob("*.whl")))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cut = ["unshare", "-rn"]  # a network of its own, with nothing in it
    if subprocess.run([*cut, "true"], capture_output=True, check=False).returncode:
        cut = []
    inputs = ["--low", str(PHONE / "phone_depth_mm.png"), "--unit", "mm", "--rgb", str(PHONE / "phone_color.jpg")]
    outputs = ["-o", "sharp.png", "--picture", "view.png", "--points", "cloud.ply"]
    done = subprocess.run(
        [*cut, str(python), "-I", "-c", NO_NETWORK, "predict", *inputs, *outputs],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "empty") in done.stdout
    with Image.open(tmp_path / "sharp.png") as made, Image.open(PHONE / "phone_color.jpg") as photo:
        assert made.size == photo.size
    assert (tmp_path / "view.png").is_file()
    assert (tmp_path / "cloud.ply").is_file()

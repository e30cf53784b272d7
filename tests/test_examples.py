"""Every script and every notebook in examples/ runs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from crispdepth.models.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[1]


NO_SCRIPT = "ablation.py"  # what the ablations share
SLOW = ("draw_viewer.py", "kill_batch.py", "naima_speed.py")  # most of a minute


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(p.name, marks=[pytest.mark.slow] if p.name in SLOW else [])
        for p in sorted((ROOT / "examples").glob("*.py"))
        if p.name != NO_SCRIPT
    ],
)
def test_an_example_runs(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if script in SLOW:  # a process of its own: a browser and a server leave sockets behind
        done = subprocess.run([sys.executable, ROOT / "examples" / script, "--quick"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        if script == "kill_batch.py":  # figures mean nothing without the model
            told = (ROOT / "docs/scale.md").read_text(encoding="utf-8").partition("<!-- killed -->\n")[2]
            line = r"(\S+): \d+ frames of 160x120, low maps 8 times smaller; \d+ of them broken\n"
            for text in (done.stdout, told.removeprefix("- ")):
                found = re.match(line, text)
                assert found is not None
                assert found[1] in CATALOG
        return
    monkeypatch.setattr(sys, "argv", [script, "--quick"])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.filterwarnings("default")  # the kernel's own, of sockets and event loops
@pytest.mark.parametrize("notebook", sorted(p.name for p in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_runs_from_top_to_bottom_and_is_kept_without_outputs(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(ROOT / "examples" / notebook, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(out.get("text", "") for cell in cells for out in cell.outputs)
    bicubic, crisp = map(float, re.findall(r"(?:bicubic|crispdepth) ([\d.]+) cm", printed)[:2])
    assert crisp < bicubic
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)
    assert (tmp_path / "cloud.ply").stat().st_size > 100_000
    for path in tmp_path.iterdir():  # run where it lies, it leaves nothing for git to add
        assert subprocess.run(["git", "check-ignore", "-q", f"examples/{path.name}"], cwd=ROOT).returncode == 0, path

"""Docs: every block of commands runs, every symbol and link exists, every page is in the site."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import crispdepth
from typer.main import get_command

from crispdepth.cli import app
from crispdepth.data.sample import write_sample
from crispdepth.models.crisp import TINY_CONFIG, Crisp
from crispdepth.models.ctkt import Ctkt, CtktConfig
from crispdepth.models.naima import SMALL_CONFIG, Naima

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "crispdepth"
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# Blocks that do not run here: they say so in their first line, "# needs: …". Their commands are parsed all the same.
NEEDS = {
    "README.md": {"an install": 2, "the hub": 1},
    "CONTRIBUTING.md": {"an install": 1},
    "docs/depth-only.md": {"hours": 1},
    "docs/engines.md": {"minutes": 3},
    "docs/evaluate.md": {"a data set": 1},
    "docs/hub.md": {"pip": 1, "the hub": 2},
    "docs/index.md": {"an install": 1},
    "docs/naima.md": {"the authors' checkpoint": 1, "a data set": 1, "hours": 1},
    "docs/scale.md": {"a cluster and an object store": 3, "hours": 1},
    "docs/rgb-only.md": {"the hub": 1},
    "docs/symbiotic.md": {"the hub": 1},
    "docs/train.md": {"GPUs": 3, "hours": 2},
    "docs/viewer.md": {"a browser": 1},
}


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return [(m[1], m[2]) for m in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))]


def need(text: str) -> str:
    """What a block says it needs beyond this machine; empty: it runs."""
    found = re.match(r"# needs: (.+)\n", text)
    return found[1] if found else ""


def commands(text: str) -> list[list[str]]:
    """The commands of a block, as words: continued lines joined, comments dropped."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.mark.parametrize("page", PAGES)
def test_a_block_runs_or_says_what_it_needs(page: str) -> None:
    found = Counter(need(text) for language, text in blocks(page) if language in ("sh", "bash", "python"))
    del found[""]
    assert found == NEEDS.get(page, {}), f"{page}: put what is new here into NEEDS, or let it run"
    fences = re.findall(r"^[ \t]+```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert not fences, f"{page}: an indented block is run by no test"
    for language, _ in blocks(page):
        assert language in ("sh", "python", "text", "bibtex"), f"{page}: a block of {language or 'no language'}"


def test_a_page_that_shows_batch_says_what_it_needs() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "crispdepth batch " not in text or "pip install 'crispdepth[scale]'" in text, page


@pytest.mark.parametrize("page", [p for p in PAGES if any(language in ("sh", "python") for language, _ in blocks(p))])
def test_the_blocks_of_a_page_run(page: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "sh":
            for words in commands(text):
                run_or_parse(words, parse_only=bool(need(text)))
        elif language == "python" and not need(text):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, page, "exec"), names)
            for line in re.findall(r"print\(.*\)  # (.*)", text):
                assert line in out.getvalue().splitlines(), f"{page} promises to print {line}"


def run_or_parse(words: list[str], parse_only: bool) -> None:
    """One command line of the docs: run in this process, or only understood where it needs more than there is."""
    if parse_only and "crispdepth" in words:
        words = words[words.index("crispdepth") :]  # after variables, and after who starts it on many machines
    program, *rest = words
    if program == "crispdepth" and not parse_only:
        rest += ["--size", "160x120"] if rest[0] == "sample" else []  # the same at less cost
        done = crispdepth(*rest)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    elif program == "crispdepth":
        parsed(rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {w for w in rest if "=" not in w} <= set(targets), words
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        assert rest[0] == "install"
        assert set(re.findall(r"crispdepth\[(\w+)\]", " ".join(rest))) <= set(extras), words
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), f"{words}: tests/test_examples.py runs it"
    else:
        assert parse_only, f"{shlex.join(words)}: no test knows how to run it"
        assert program in ("git", "cd", ".", "ray"), f"{shlex.join(words)}: no test knows how to run it"


def parsed(words: list[str]) -> None:
    """Raises where the command would not understand its words."""
    command = get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that the docs name, small: phone, camera, folders, weights."""
    folder = tmp_path_factory.mktemp("files")
    write_sample(folder / "s", scale=4, seed=7, size=(96, 128))
    low, rgb, truth = folder / "s/low.png", folder / "s/rgb.png", folder / "s/truth.png"
    (folder / "demo").mkdir()  # of the size that `make demo` leaves
    Image.open(low).resize((80, 60), Image.Resampling.NEAREST).save(folder / "demo/low.png")
    Image.open(rgb).resize((640, 480)).save(folder / "demo/rgb.png")
    shutil.copy(folder / "s/intrinsics.json", folder / "demo")
    for name in ("lidar.png", "depth.png"):
        shutil.copy(low, folder / name)
    for name in ("photo.jpg", "colour.jpg", "infrared.png"):
        Image.open(rgb).convert("L" if name.startswith("infra") else "RGB").save(folder / name)
    Image.fromarray(np.full((24, 32), 2, dtype=np.uint8)).save(folder / "conf.png")
    parts = {"depth": low, "photos": rgb, "mine/rgb": rgb, "mine/depth": truth, "mine/low": low}
    for part, source in {**parts, "frames_low": low, "frames_rgb": rgb}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for stem in ("a", "b"):
            suffix = ".jpg" if part == "photos" else ".png"
            Image.open(source).save(folder / part / f"{stem}{suffix}")
    shutil.copytree(folder / "mine", folder / "held_back")
    small, large = (28.0, 28.0, 15.5, 11.5), (110.0, 110.0, 63.5, 47.5)
    for name, camera in (("depth_camera", small), ("colour_camera", large)):
        text = json.dumps(dict(zip(("fx", "fy", "cx", "cy"), camera, strict=True)))
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    rows = [[1, 0, 0, 0.01], [0, 1, 0, 0], [0, 0, 1, 0]]
    (folder / "depth_to_colour.json").write_text(json.dumps(rows), encoding="utf-8")
    torch.manual_seed(0)
    for run in ("runs/ctkt", "runs/mine", "runs/crisp"):
        (folder / run).mkdir(parents=True)
    Ctkt(CtktConfig(stages=1, blocks=1, width=8)).save(folder / "runs/ctkt/weights.safetensors")
    Crisp(TINY_CONFIG).save(folder / "runs/mine/weights.safetensors")
    Naima(replace(SMALL_CONFIG, width=4, encoder=1, layers=(0, 1, 2, 3), token_blocks=4)).save(
        folder / "naima_x8.safetensors"
    )
    return folder


def symbols(path: Path) -> set[str]:
    """Names at the top of a module, and Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def test_every_symbol_in_the_docs_exists() -> None:
    seen = 0
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for word in re.findall(r"`((?:models|layers|training|bench|data|geometry)\.\w[\w.]*)`", text):
            parts = word.split(".")
            path = PACKAGE.joinpath(*parts[: 1 if parts[0] == "geometry" else 2]).with_suffix(".py")
            name = ".".join(parts[1 if parts[0] == "geometry" else 2 :])
            assert path.is_file(), f"{page}: {word}"
            assert name in symbols(path), f"{page}: {word}"
            seen += 1
    assert seen > 30


def test_every_path_in_the_docs_exists() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:src|examples|tests|docs)/[\w./-]*)`", text):
            assert (ROOT / path).exists() or "NAME" in path or path.endswith("yours.py"), f"{page}: {path}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.is_file(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page}: {target}"


def test_every_page_is_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2].partition("\nvalidation:")[0]
    named = re.findall(r": (\S+\.(?:md|ipynb))$", nav, re.MULTILINE)
    assert sorted(f"docs/{name}" for name in named) == [p for p in PAGES if p.startswith("docs/")]


def test_the_public_names_are_all_in_the_api_page() -> None:
    told = re.findall(r"^::: crispdepth\.(\w+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    public = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign))
    assert sorted(told) == sorted(public)

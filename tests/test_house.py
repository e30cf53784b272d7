"""The house rules: imports go down, the README's tree is true, the front door is one screen."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import crispdepth

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "crispdepth"

# From the ground up. A module may import from floors below its own, never beside or above.
FLOORS = (
    ("types", "memory", "scale.overlap", "scale.forecast"),
    ("exportable", "extras", "layers.attention"),
    ("layers.strips",),
    ("layers.blocks",),
    ("geometry", "picture", "units", "atomic", "formats.raw", "formats.ply", "formats.glb"),
    (
        "layers.dsrnet",
        "graphs",
        "intrinsics",
        "kernel",
        "noise",
        "confidence",
        "reprojection",
        "shift",
        "mesh",
        "scale.stores",
        "tiles",
        "video",
        "formats.png_tiff",
        "formats.exr",
        "formats.numpy_pfm",
        "formats.heif",
        "formats.hdf5",
    ),
    (
        "degradation",
        "detail",
        "metrics",
        "losses",
        "io",
        "models.saved",
        "models.pretrained",
        "models.naima_released",
        "hub",
        "options",
    ),
    (
        "models.classical",
        "models.crisp",
        "models.ctkt",
        "models.ensemble",
        "models.foundation",
        "models.naima",
        "models.symbiotic",
        "job",
        "roles",
    ),
    ("models.catalog", "convert", "data.folder", "data.raycast", "data.textures"),
    (
        "data.middlebury",
        "data.nyu",
        "scale.plan",
        "scale.suspects",
        "data.layout",
        "data.shading",
        "data.augmentation",
        "data.nearfarmix",
    ),
    ("data.nyu_eigen", "data.rgbdd", "data.tofdsr", "data.diml", "data.hypersim", "data.kitti"),
    ("data.lu", "data.scenes", "scale.manifest"),
    ("data.sample", "data.sets", "data.moving"),
    ("careful", "training.recipes", "recordings"),
    ("inference",),
    ("export",),
    ("engines",),
    (
        "bench.protocol",
        "bench.robust",
        "bench.speed",
        "bench.flickering",
        "bench.agreement",
        "training.examples",
        "training.muon",
        "training.teacher",
        "outputs",
    ),
    ("bench.evaluation", "training.task"),
    (
        "bench.report",
        "batch",
        "findings",
        "about",
        "training.supervised",
        "training.distilled",
        "training.tokens",
        "training.semi",
    ),
    ("training.run", "scale.session", "desk"),
    ("scale.bulk", "scale.ray_job", "page"),
    ("viewer",),
    ("cli",),
)
PUBLIC_NAMES = 16
HEAVY = (
    "lightning",
    "gradio",
    "ray",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "transformers",
    "huggingface_hub",
    "torchvision",
    "timm",
    "pyarrow",
    "s3fs",
)


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file, without the packages' own __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__init__.py":
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imported(path: Path) -> set[str]:
    """Names of our own modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "crispdepth":
            inner = node.module.removeprefix("crispdepth").lstrip(".")
            known = modules()
            for alias in node.names:
                deeper = f"{inner}.{alias.name}".lstrip(".")
                names.add(deeper if deeper in known else inner)
        elif isinstance(node, ast.Import):
            names |= {a.name.removeprefix("crispdepth.") for a in node.names if a.name.startswith("crispdepth")}
    return names


def test_every_module_has_its_floor() -> None:
    placed = [name for floor in FLOORS for name in floor]
    assert sorted(placed) == sorted(modules())


def test_imports_only_go_down() -> None:
    floor_of = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name, path in modules().items():
        for target in imported(path):
            assert target in floor_of, f"{name} imports {target or 'the package itself'}: import from the module"
            assert floor_of[target] < floor_of[name], f"{name} imports {target}, which is not below it"


def test_models_and_data_are_blind_to_each_other() -> None:
    for name, path in modules().items():
        rooms = {target.split(".")[0] for target in imported(path)}
        if name.startswith("models."):
            assert "data" not in rooms, name
        if name.startswith("data."):
            assert "models" not in rooms, name


def test_only_the_command_imports_inside_functions() -> None:
    for name, path in modules().items():
        if name == "cli":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            inside = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inside, f"{name}.{function.name} imports inside a function"


def test_a_file_name_occurs_once() -> None:
    stems = [name.split(".")[-1] for name in modules()]
    assert len(stems) == len(set(stems))
    assert not {"utils", "common", "base", "core", "helpers", "misc"} & set(stems)


def first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path} has no docstring"
    return doc.splitlines()[0]


def tree() -> list[str]:
    """The README's tree of src/crispdepth, made from the modules' first docstring lines."""
    lines = []

    def add(folder: Path, depth: int) -> None:
        entries = [p for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
        for path in sorted(entries, key=lambda p: (p.name != "__init__.py", p.is_dir(), p.name)):
            if path.name == "__init__.py":
                continue  # the folder's own line says it
            source = path / "__init__.py" if path.is_dir() else path
            label = "  " * depth + path.name + ("/" if path.is_dir() else "")
            lines.append(f"{label:24s}{first_line(source)}")
            if path.is_dir():
                add(path, depth + 1)

    add(PACKAGE, 0)
    return lines


def test_the_readme_shows_the_tree_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\nsrc/crispdepth/\n(.*?)```", readme, re.DOTALL)
    assert block, "the README has no tree"
    shown = [line.removeprefix("  ") for line in block[1].rstrip().splitlines()]
    assert shown == tree(), "put this into the README:\n" + "\n".join("  " + line for line in tree())


def test_public_names_are_sorted_few_and_there() -> None:
    names = crispdepth.__all__
    assert names == sorted(names)
    assert len(names) <= PUBLIC_NAMES
    for name in names:
        assert getattr(crispdepth, name).__doc__, name


def test_importing_crispdepth_and_listing_what_there_is_pull_in_nothing_heavy() -> None:
    code = f"import sys, crispdepth; crispdepth.names(); print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_banned_name_is_used() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name | ast.arg):
                word = node.id if isinstance(node, ast.Name) else node.arg
                assert word != "lr", f"{name}: `lr` is a learning rate here and low resolution there"


def test_no_address_or_path_of_a_machine_is_written_down() -> None:
    pattern = re.compile(r"https?://[^\s)\"'`>]*(simple|pypi|mirror|artifactory)|/root/|/work/|find-links", re.I)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for line in tracked.stdout.splitlines():
        path = ROOT / line
        if path == Path(__file__).resolve() or path.suffix in (".jpg", ".png", ".safetensors") or not path.is_file():
            continue
        assert not pattern.search(path.read_text(encoding="utf-8")), line

"""Exported files say what torch says; the engine is chosen by what the machine has; missing packages are named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_cli import crispdepth, refused
from test_crisp import shuffled

from crispdepth import engines
from crispdepth import export as exporting
from crispdepth.bench import agreement, report, speed
from crispdepth.bench.evaluation import evaluate
from crispdepth.careful import estimated
from crispdepth.engines import Choice, Converted, Machine, OnDevice, Wanted, choose, opened, prepared
from crispdepth.export import AGREE, converted, export
from crispdepth.exportable import Spectrum, irfft2, ratio, resized, rfft2
from crispdepth.geometry import fill
from crispdepth.graphs import Graph, core
from crispdepth.inference import predict
from crispdepth.io import write_rgb
from crispdepth.models import symbiotic
from crispdepth.models.catalog import load, sharpeners
from crispdepth.models.crisp import TINY_CONFIG
from crispdepth.models.ctkt import Ctkt, CtktConfig
from crispdepth.models.symbiotic import Symbiotic
from crispdepth.types import InputError, Model, Sample

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package)

AUTO = Wanted()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network: crisp.safetensors, .onnx and .xml."""
    folder = tmp_path_factory.mktemp("exported")
    network = shuffled(TINY_CONFIG)
    network.save(folder / "crisp.safetensors")
    saved = load(str(folder / "crisp.safetensors"))
    for suffix in (".onnx", ".xml"):
        lines = export(saved, folder / f"crisp{suffix}")
        assert "low, valid, rgb; any size, 4.76 to 9.51 times" in lines[0]
    assert sorted(path.suffix for path in folder.iterdir()) == [".bin", ".onnx", ".safetensors", ".xml"]
    return folder


def small_ctkt() -> Ctkt:
    torch.manual_seed(0)
    network = Ctkt(CtktConfig(stages=2, blocks=1, width=6)).eval()
    for part in (network.x2, network.x4):
        for stage in part.stages:
            torch.nn.init.normal_(stage.get_parameter("leave.weight"), std=0.1)
    return network


def odd(batch: int = 2, low: tuple[int, int] = (7, 11), size: tuple[int, int] = (53, 81)) -> Sample:
    dice = torch.Generator().manual_seed(4)
    depth = torch.rand(batch, 1, *low, generator=dice) + 1
    valid = torch.rand(batch, 1, *low, generator=dice) > 0.4
    return Sample(rgb=torch.rand(batch, 3, *size, generator=dice), low=depth, valid=valid)


def agree(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=AGREE * float(b.max() - b.min()))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("sample", [odd(), odd(1, (1, 1), (5, 12)), odd(1, (40, 3), (90, 55))])
def test_a_file_says_what_torch_says_at_sizes_it_has_never_seen(files: Path, suffix: str, sample: Sample) -> None:
    network, graph = load(str(files / "crisp.safetensors")), Graph(files / f"crisp{suffix}")
    assert graph.wants_clean
    assert graph.leaves_relief
    assert graph.inputs == network.inputs
    assert graph.kind == network.kind
    for made, expected in zip(estimated(graph, sample), estimated(network, sample), strict=True):
        assert made is not None
        assert expected is not None
        agree(made, expected)


def test_a_child_may_end_when_files_of_openvino_are_gone(files: Path) -> None:
    # OpenVINO's cores set up a stack for signals: with one for each file, SIGCHLD found a stack that was gone
    script = """
import gc, signal, subprocess, sys
from pathlib import Path
from crispdepth.graphs import Graph
graphs = [Graph(Path(sys.argv[1])) for _ in range(2)]
while graphs:
    del graphs[0]
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print("ended"))
subprocess.run(["true"])
"""
    done = subprocess.run([sys.executable, "-c", script, str(files / "crisp.xml")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_engine_serves_every_scale_by_files_of_its_own(name: str) -> None:
    network = shuffled()
    model = prepared(network, Choice(name, "cpu", "float32", "asked for"))
    assert isinstance(model, Converted)
    for size, files in (((53, 81), 1), ((60, 90), 1), ((25, 40), 2), ((9, 12), 3), ((53, 81), 3)):
        sample = odd(1, size=size)
        made, expected = (estimated(each, sample)[0] for each in (model, network))
        agree(made, expected)
        assert len(model.graphs) == files


def test_a_file_of_ctkt_serves_one_cascade_and_says_which(tmp_path: Path) -> None:
    network, path = small_ctkt(), tmp_path / "ctkt.onnx"
    export(network, path, scale=4)
    sample, graph = odd(1, (11, 13), (41, 53)), Graph(path)
    made, expected = (estimated(each, sample, (41, 53))[0] for each in (graph, network))
    agree(made, expected)
    with pytest.raises(InputError, match=r"enlarges 2.38 to 4.76 times, not 8 times.*--scale 8"):
        estimated(graph, sample, (88, 104))


def test_the_range_of_a_file_is_said_where_it_begins_at_0_too(tmp_path: Path) -> None:
    lines = export(shuffled(TINY_CONFIG), tmp_path / "crisp.onnx", scale=2)
    assert lines[0].endswith("any size, up to 2.38 times")


def test_the_page_says_which_networks_serve_one_range_and_which() -> None:
    page = " ".join((Path(__file__).parents[1] / "docs/engines.md").read_text(encoding="utf-8").split())
    told = page.partition("**Any size**")[2].partition("- **")[0]
    networks: dict[str, Any] = {name: load(name) for name in sharpeners()}
    ranged = {name: network for name, network in networks.items() if hasattr(network, "served")}
    assert {name for name in networks if f"`{name}`" in told} == set(ranged)
    for network in ranged.values():
        assert "{:.3g} to {:.3g} times".format(*network.served(8)) in told


@pytest.mark.parametrize("scale", [1.0, 1.19, 1.2, 2.0, 3.0, 8.0, 9.6, 30.0])
def test_ctkt_serves_the_scales_of_one_cascade(scale: float) -> None:
    from crispdepth.models.ctkt import cascade

    def at(ratio: float) -> tuple[int, ...]:
        return cascade((1000, 1000), (round(1000 * ratio), round(1000 * ratio)))

    least, most = Ctkt.served(scale)
    assert least <= scale <= most
    assert at(most - 0.002) == at(scale) != at(most + 0.002)
    if at(scale):
        assert at(least + 0.002) == at(scale) != at(least - 0.002)


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "AGREE", -1.0)
    with pytest.raises(InputError, match="differs from torch by"):
        export(shuffled(), tmp_path / "crisp.onnx")
    assert not list(tmp_path.iterdir())


def floats_and_eights(path: Path) -> dict[str, list[bool]]:
    """Of each kind of operation in an OpenVINO file, in order: whether anything goes into it that was put to 8 bits."""
    found: dict[str, list[bool]] = {}
    for node in core().read_model(str(path)).get_ordered_ops():
        before = [node.input_value(i).get_node().get_type_name() for i in range(node.get_input_size())]
        found.setdefault(node.get_type_name(), []).append("FakeQuantize" in before)
    return found


@pytest.mark.slow
def test_int8_states_its_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf")
    monkeypatch.setattr(exporting, "CALIBRATION", range(2))
    monkeypatch.setattr(exporting, "HELD_BACK", range(2, 3))
    monkeypatch.setattr(exporting, "SCENE", (64, 96))
    monkeypatch.setattr(exporting, "WORST", 100.0)  # a network that learnt nothing
    lines = export(shuffled(), tmp_path / "crisp.xml", int8=True)
    assert "int8     RMSE" in lines[1]
    assert "convolutions in 8 bits" in lines[1]
    eights = floats_and_eights(tmp_path / "crisp.xml")
    convolutions = eights.pop("Convolution")
    assert convolutions[-3:] == [False] * 3  # the last ones stay float32 …
    assert sum(convolutions) > 0.8 * (len(convolutions) - 3)
    others = {"GroupConvolution", "ConvolutionBackpropData", "FakeQuantize"}
    assert not {kind for kind in eights.keys() - others if any(eights[kind])}  # … and what is added to the depth
    sample = odd()
    made, expected = (estimated(each, sample)[0] for each in (Graph(tmp_path / "crisp.xml"), shuffled()))
    assert 0 < float((made - expected).abs().mean()) < 0.05  # of 1 to 2 metres; 8 bits are not float32


@pytest.mark.slow
def test_int8_that_costs_too_much_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf")
    monkeypatch.setattr(exporting, "CALIBRATION", range(1))
    monkeypatch.setattr(exporting, "SCENE", (64, 96))
    errors = iter((0.02, 0.0221, 0.02, 0.0219))  # torch's and the file's: 1.105 times, 1.095 times
    monkeypatch.setattr(exporting, "held_back_rmse", lambda *_: next(errors))
    network = shuffled(TINY_CONFIG)
    with pytest.raises(InputError, match=r"RMSE 2\.00 -> 2\.21 cm, \+10\.5%.*more than 1\.1 times is too much"):
        export(network, tmp_path / "crisp.xml", int8=True)
    assert not list(tmp_path.iterdir())
    assert "+9.5%" in export(network, tmp_path / "crisp.xml", int8=True)[1]


def test_openvino_makes_each_size_of_result_from_one_low_map(tmp_path: Path) -> None:
    network = small_ctkt()
    export(network, tmp_path / "ctkt.xml", scale=8)
    graph = Graph(tmp_path / "ctkt.xml")
    for height in (160, 160, 160, 140, 140, 160):  # from the second time on, one that was compiled for its sizes
        sample = odd(1, (20, 20), (height, height))
        made, expected = (estimated(each, sample, (height, height))[0] for each in (graph, network))
        assert made.shape[-2:] == (height, height)
        agree(made, expected)


def restless(network: Model) -> Model:
    """All weights a little off, so that no part begins as nothing."""
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=dice))
    return network.eval()


def small_naima() -> Model:
    naima = pytest.importorskip("crispdepth.models.naima")
    shape = {"token_channels": 12, "token_blocks": 4, "token_heads": 2, "grid": 4, "layers": (0, 1, 2, 3)}
    torch.manual_seed(0)
    config = naima.NaimaConfig(scale=4, width=4, encoder=1, upsampler=1, circle=True, **shape)
    return restless(naima.Naima(config))


def small_symbiotic() -> Model:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return restless(Symbiotic(replace(symbiotic.TINY_CONFIG, classes=("wall", "floor"))))


@pytest.mark.parametrize("make", [pytest.param(small_naima, marks=pytest.mark.slow), small_symbiotic])
@pytest.mark.parametrize("engine", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_network_that_needs_it_has_a_file_for_one_size(make: Callable[[], Model], engine: str) -> None:
    model = make()
    served = prepared(model, Choice(engine, "cpu", "float32", "a test"))
    sample = odd(1, (20, 27), (80, 108))
    for _ in range(2):
        depth, _ = estimated(served, sample, (80, 108))
        expected, _ = estimated(model, sample, (80, 108))
        agree(depth, expected)
    assert isinstance(served, Converted)
    assert len(served.graphs) == 1
    with pytest.raises(InputError, match=r"for rgb of 108x80 pixels, not 112x80.*--size"):
        estimated(served.graphs[0], odd(1, (20, 27), (80, 112)), (80, 112))


def test_a_file_for_one_size_says_so(tmp_path: Path) -> None:
    lines = export(small_ctkt(), tmp_path / "ctkt.onnx", 8, size=(64, 80))
    assert lines[0].startswith("inputs   low, valid; ")
    assert "low 10x8" in lines[0]
    graph, sample = Graph(tmp_path / "ctkt.onnx"), odd(2, (8, 10), (64, 80))
    agree(estimated(graph, sample, (64, 80))[0], estimated(small_ctkt(), sample, (64, 80))[0])
    with pytest.raises(InputError, match="for a result of 80x64 pixels, not 84x64"):
        estimated(graph, sample, (64, 84))
    with pytest.raises(InputError, match="say which by --size"):
        export(small_naima(), tmp_path / "naima.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ctkt.onnx"]


def test_a_file_of_a_picture_alone_knows_the_camera_it_learnt_with(tmp_path: Path) -> None:
    model = small_symbiotic()
    export(model, tmp_path / "s.onnx", size=(80, 108))
    graph: Any = Graph(tmp_path / "s.onnx")
    rgb = np.random.default_rng(0).random((80, 108, 3), np.float32)
    (expected, found), (at_200, again) = (
        [predict(m, rgb=rgb, focal_px=f).depth for m in (model, graph)] for f in (None, 200.0)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(again, at_200, rtol=1e-3)
    assert not np.allclose(again, found, rtol=0.05)
    assert graph.focal_for((80, 108)) == pytest.approx(model.focal_for((80, 108)))  # type: ignore[operator]


@pytest.mark.parametrize("size", [(7, 11), (8, 6), (1, 5), (12, 1)])
def test_spectra_by_matrices_are_torchs(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    expected = torch.fft.rfft2(x)
    found = rfft2(x)
    torch.testing.assert_close(found.real, expected.real, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.imag, expected.imag, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.abs(), expected.abs(), atol=1e-5, rtol=0)
    changed = expected * torch.complex(torch.tensor(0.3), torch.tensor(0.7))  # no longer the spectrum of a real map
    torch.testing.assert_close(
        irfft2(Spectrum(changed.real, changed.imag), size), torch.fft.irfft2(changed, s=size), atol=1e-6, rtol=0
    )


def test_what_cannot_be_exported_is_refused_with_a_cure(tmp_path: Path) -> None:
    refused(crispdepth("export", "fgs", "-o", tmp_path / "fgs.onnx"), "only networks")
    refused(crispdepth("export", "crisp", "-o", tmp_path / "crisp.pt"), "use one of .onnx, .xml")
    refused(crispdepth("export", "crisp", "-o", tmp_path / "crisp.onnx", "--int8"), r"call it crisp\.xml")


@pytest.mark.parametrize(
    ("package", "words", "line"),
    [
        ("onnx", ["export", "crisp", "-o", "a.onnx"], r"pip install 'crispdepth\[onnx\]'"),
        ("openvino", ["predict", "--engine", "openvino"], r"pip install 'crispdepth\[openvino\]'"),
        ("onnxruntime", ["predict", "--engine", "onnx"], r"pip install 'crispdepth\[onnx\]'"),
    ],
)
def test_a_missing_package_has_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: list[str], line: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what `import` sees of a package that is not installed
    monkeypatch.chdir(tmp_path)
    if words[0] == "predict":
        np.save("low.npy", np.ones((6, 8), np.float32))
        write_rgb("rgb.png", np.zeros((12, 16, 3), np.uint8))
        words = [*words, "--low", "low.npy", "--rgb", "rgb.png", "-o", "out.npy"]
    refused(crispdepth(*words), line)


def test_the_command_predicts_with_an_exported_file_and_says_so(files: Path, tmp_path: Path) -> None:
    assert crispdepth("sample", "-o", tmp_path, "--size", "96x64").returncode == 0
    words = ["--low", tmp_path / "low.png", "--unit", "mm", "--rgb", tmp_path / "rgb.png"]
    exact = ["--model", files / "crisp.safetensors", "--precision", "float32"]
    by_torch = crispdepth("predict", *words, *exact, "-o", tmp_path / "a.npy")
    by_file = crispdepth("predict", *words, "--model", files / "crisp.onnx", "-o", tmp_path / "b.npy")
    assert by_torch.returncode == by_file.returncode == 0, by_file.stderr
    assert "engine   torch, cpu" in by_torch.stdout
    assert "engine   onnx, cpu" in by_file.stdout
    from crispdepth.io import read_depth

    a, b = (torch.from_numpy(read_depth(tmp_path / name).depth) for name in ("a.npy", "b.npy"))
    agree(b, a)
    refused(crispdepth("predict", *words, "--engine", "onyx", "-o", tmp_path / "c.npy"), "did you mean onnx")
    refused(crispdepth("predict", *words, "--engine", "onnx", "--device", "cuda", "-o", tmp_path / "c.npy"), "cpu")


def picked(machine: Machine, wanted: Wanted = AUTO) -> tuple[str, str, str]:
    choice = choose(wanted, shuffled(), machine)
    assert choice.why
    return choice.engine, choice.device, choice.precision


def test_the_engine_is_chosen_by_what_the_machine_has() -> None:
    assert picked(Machine()) == ("torch", "cpu", "float32")
    assert picked(Machine(bf16=True)) == ("torch", "cpu", "bf16")
    assert picked(Machine(cuda=1, bf16=True)) == ("torch", "cuda", "float16")
    assert picked(Machine(mps=True)) == ("torch", "mps", "float32")
    assert picked(Machine(cuda=1), wanted=Wanted(device="cpu")) == ("torch", "cpu", "float32")
    assert picked(Machine(cuda=1), wanted=Wanted("onnx")) == ("onnx", "cpu", "float32")
    assert picked(Machine(bf16=True), wanted=Wanted(precision="float32")) == ("torch", "cpu", "float32")
    everything = Machine(cuda=1, bf16=True)
    assert choose(AUTO, load("fgs"), everything).device == "cpu"  # OpenCV knows no GPU
    assert choose(AUTO, small_ctkt(), everything).precision == "float16"
    assert choose(AUTO, small_symbiotic(), everything).precision == "float32"  # not measured


def test_what_the_machine_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="no cuda device"):
        picked(Machine(), wanted=Wanted(device="cuda:1"))
    with pytest.raises(InputError, match="no cuda:2 here, the last is cuda:1"):
        picked(Machine(cuda=2), wanted=Wanted(device="cuda:2"))
    assert picked(Machine(cuda=2), wanted=Wanted(device="cuda:1")) == ("torch", "cuda:1", "float16")
    with pytest.raises(InputError, match="runs in float32"):
        picked(Machine(), wanted=Wanted("openvino", precision="bf16"))
    for word in ("tpu", "cpu:7", "cuda:x"):
        with pytest.raises(InputError, match="unknown device"):
            Wanted(device=word)


def test_an_exported_file_is_a_model_of_its_name(files: Path, tmp_path: Path) -> None:
    file, weights = str(files / "crisp.onnx"), str(files / "crisp.safetensors")
    agree(estimated(load(file), odd())[0], estimated(load(weights), odd())[0])
    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "depth" / "a.npy", 1 + np.random.default_rng(0).random((48, 64), np.float32).round())
    write_rgb(tmp_path / "rgb" / "a.png", np.zeros((48, 64, 3), np.uint8))
    by_file, by_weights = (evaluate(name, "folder", tmp_path, 8, "dctnet").metrics for name in (file, weights))
    assert by_file["rmse"] == pytest.approx(by_weights["rmse"], rel=1e-3)
    refused(crispdepth("export", file, "-o", tmp_path / "again.onnx"), "an exported file already")
    refused(crispdepth("evaluate", "--model", tmp_path / "none.onnx", "--set", "scenes"), "does not exist")


class Elsewhere(Model):
    """Weights on torch's device without memory, to which any tensor can go; says what came there."""

    inputs = ("low", "rgb")

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, low: torch.Tensor, valid: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        assert {x.device.type for x in (low, valid, rgb)} == {"meta"}
        return torch.ones(1, 1, *rgb.shape[-2:])


def test_a_model_that_was_moved_by_hand_is_brought_what_it_needs() -> None:
    low, rgb = np.ones((8, 8), np.float32), np.zeros((32, 32, 3), np.uint8)
    assert (predict(Elsewhere(), low=low, rgb=rgb).depth == 1).all()


def test_a_file_for_levels_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def noted(model: Model, path: Path, *parts: Any, **named: Any) -> str:
        made.append(path.name)
        return converted(model, path, *parts, **named)

    monkeypatch.setattr(engines, "converted", noted)
    model, _ = opened("ctkt", Wanted("onnx"))
    levels = np.random.default_rng(0).integers(40, 200, (8, 8)).astype(np.float32)
    for _ in range(2):
        predict(model, low=levels, size=(32, 32), unit="disparity", levels=True, align="off")
    assert len(made) == 1


def test_an_engine_asked_for_gives_the_same_depth(files: Path) -> None:
    name = str(files / "crisp.safetensors")
    made, choice = opened(name, Wanted("onnx"))
    assert choice.engine == "onnx"
    agree(estimated(made, odd())[0], estimated(load(name), odd())[0])


@pytest.mark.parametrize("name", ["crisp", "ctkt"])
def test_sixteen_bits_change_the_depth_by_little_of_its_range(name: str) -> None:
    network, sample = load(name), odd()
    model = prepared(network, Choice("torch", "cpu", "bf16", "asked for"))
    assert isinstance(model, OnDevice)
    made, expected = (estimated(each, sample)[0] for each in (model, network))
    assert made.dtype == torch.float32
    off = (made - expected).abs() / (expected.max() - expected.min())
    assert 0 < float(off.mean()) < 2e-3
    assert float(off.max()) < 3e-2


def test_on_another_device_there_are_tiles_too() -> None:
    sample, network = odd(1, (20, 27), (80, 108)), load("crisp")
    model = prepared(network, Choice("torch", "cpu", "bf16", "asked for"))
    assert model.bytes_per_pixel == network.bytes_per_pixel
    work = model.local(sample.low, sample.valid, sample.rgb)  # type: ignore[operator]
    made, error = work.run(work.low, sample.rgb, (80, 108))
    expected, wrong = estimated(model, sample)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(error, wrong)


@pytest.mark.parametrize(
    "choice", [("torch", "cpu", "bf16"), pytest.param(("onnx", "cpu", "float32"), marks=pytest.mark.slow)]
)
def test_a_picture_alone_is_predicted_by_every_engine(choice: tuple[str, str, str]) -> None:
    model, rgb = small_symbiotic(), np.random.default_rng(0).random((80, 108, 3), dtype=np.float32)
    served = prepared(model, Choice(*choice, "asked for"))
    made, expected = (predict(each, rgb=rgb, focal_px=90.0) for each in (served, model))
    atol = 5e-2 if choice[2] == "bf16" else 1e-3
    np.testing.assert_allclose(made.depth, expected.depth, atol=atol * float(np.ptp(expected.depth)))
    if choice[0] == "torch":
        assert made.class_names == ("wall", "floor")
        assert made.classes is not None
        assert float((made.classes == expected.classes).mean()) > 0.95


@pytest.mark.parametrize(("old", "new"), [(13, 48), (61, 17), (30, 31), (1, 7), (9, 1), (24, 24)])
def test_resizing_by_matrices_is_torchs(old: int, new: int) -> None:
    x = torch.rand(2, 1, old, old + 3, generator=torch.Generator().manual_seed(0))
    size = (new, new + 2)
    smooth = F.interpolate(x, size, mode="bicubic", antialias=True)
    torch.testing.assert_close(resized(x, size, "bicubic"), smooth, rtol=0, atol=1e-5)
    plain = F.interpolate(x, size, mode="bilinear")
    torch.testing.assert_close(resized(x, size, "bilinear"), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(resized(x, size, "area"), F.interpolate(x, size, mode="area"), rtol=0, atol=1e-6)
    assert float(ratio(new, old)) == pytest.approx(new / old)


@pytest.mark.parametrize("size", [(7, 11), (1, 6), (16, 16)])
def test_filling_to_the_last_level_changes_nothing(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    depth = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)) > 0.7
    expected = fill(depth, valid)
    monkeypatch.setattr("crispdepth.geometry.exporting", lambda: True)
    torch.testing.assert_close(fill(depth, valid), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_the_agreement_of_files_is_a_table_of_networks(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = agreement.measure(
        (48, 64),
        {"crisp": ("made up", lambda: shuffled(TINY_CONFIG)), "symbiotic": ("made up", small_symbiotic)},
    )
    assert [row["run_at"] for row in rows] == ["4 odd sizes", "64x48"]
    assert all(0 < row["deviation"] <= AGREE for row in rows)
    assert "| symbiotic | made up |" in agreement.table(rows)
    assert capfd.readouterr() == ("", "")  # nothing of packages that are not needed


def test_the_page_has_every_network_equal_to_torch() -> None:
    page = (Path(__file__).parents[1] / "docs/engines.md").read_text(encoding="utf-8")
    rows = page.partition("<!-- export -->")[2].partition("<!-- end of export -->")[0].strip().splitlines()[2:]
    told = {row.split("|")[1].strip(): float(row.split("|")[5]) for row in rows}
    assert set(told) == set(agreement.NETWORKS)
    assert max(told.values()) <= AGREE


def test_speed_is_measured_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: Machine()))
    for words in (["bench-speed"], ["bench-speed", "--engines"]):
        refused(crispdepth(*words, "--device", "cuda"), "torch finds no cuda device here")
        refused(crispdepth(*words, "--device", "auto"), "name it, cpu, cuda or mps")
    weights = sum(p.numel() for p in load("crisp-tiny").parameters())
    moved: list[tuple[str, str]] = []

    def prepare(model: Model, choice: Choice) -> Model:
        moved.append((choice.device, choice.precision))
        return model

    monkeypatch.setattr(speed, "prepared", prepare)
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: Machine(cuda=1)))
    monkeypatch.setattr(speed, "_unit", lambda *_: lambda: None)
    monkeypatch.setattr(speed, "_gflop", lambda _: 1.0)
    monkeypatch.setattr(speed, "peak_mb", lambda *_: 1.0)
    result = speed.measure(["crisp-tiny", "bicubic"], (48, 64), rounds=1, device="cuda")
    assert moved == [("cuda", "float32"), ("cuda", "float16")]
    assert (result["device"], result["models"]["crisp-tiny"]["parameters"]) == ("cuda", weights)


@pytest.mark.slow
def test_a_network_with_files_for_one_size_is_timed_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "load", lambda _: small_symbiotic())
    monkeypatch.setattr(speed, "GRAPHS", {name: kind for name, kind in speed.GRAPHS.items() if name != "OpenVINO"})
    monkeypatch.setattr(speed, "_compiled", lambda _: small_symbiotic())
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: Machine()))
    result = speed.measure_engines("symbiotic", (80, 112), rounds=1)
    assert result["engines"]["ONNX Runtime"]["deviation"] <= AGREE
    assert set(result["absent"]) == {"OpenVINO int8"}


def test_the_bundled_network_by_every_engine_there_is_and_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(speed, "_compiled", load)  # compiling takes a minute
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: cls(bf16=True)))
    result = speed.measure_engines("crisp", (48, 64), rounds=1)
    assert set(result["engines"]) == {"torch", "torch.compile", "torch bf16", "torch.compile bf16", "ONNX Runtime"}
    assert set(result["absent"]) == {"OpenVINO", "OpenVINO int8"}
    assert result["engines"]["torch"]["deviation"] == 0
    assert result["engines"]["ONNX Runtime"]["deviation"] <= AGREE
    assert result["engines"]["ONNX Runtime"]["rmse_change"] == 0
    assert 0 < abs(result["engines"]["torch bf16"]["rmse_change"]) < 0.005
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- engines -->\nold\n<!-- end of engines -->\nb\n")
    report.write_between(page, "engines", speed.engines_table(result))
    text = page.read_text()
    assert "old" not in text
    assert "| ONNX Runtime |" in text
    assert "OpenVINO: this needs openvino" in text
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    page.write_text("nothing")
    with pytest.raises(InputError, match="no marks"):
        report.write_between(page, "engines", "text")


def test_a_compiled_model_says_the_same_and_a_failure_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    real = torch.compile

    def noted(call: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        traced = real(call, backend="eager", dynamic=dynamic)  # all but the C++, which takes a minute

        def run(*parts: Any, **named: Any) -> Any:
            ran.append(call.__name__)
            return traced(*parts, **named)

        assert not dynamic
        return run

    def agrees(name: str, expected: list[str], **parts: Any) -> None:
        ran.clear()
        made, plain = (predict(model, **parts).depth for model in (opened(name, words, Machine())[0], load(name)))
        np.testing.assert_allclose(made, plain, rtol=1e-4)
        assert ran == expected

    monkeypatch.setattr(torch, "compile", noted)
    words = Wanted(engine="compile")
    choice = opened("ctkt", words, Machine())[1]
    assert (choice.engine, choice.device, choice.precision) == ("compile", "cpu", "float32")
    assert opened("ctkt", words, Machine(bf16=True))[1].precision == "bf16"
    assert opened("bicubic", words, Machine())[1].engine == "torch"  # nothing to compile
    dice = np.random.default_rng(0)
    levels = dice.integers(40, 200, (8, 8)).astype(np.float32)
    agrees("ctkt", ["forward"], low=dice.random((8, 8), np.float32) + 1, size=(32, 32))
    agrees("ctkt", ["forward"], low=levels, size=(32, 32), unit="disparity", levels=True)
    agrees("symbiotic-small", ["depth_and_classes"], rgb=np.zeros((32, 48, 3), np.uint8))
    parts: dict[str, Any] = {"low": levels, "size": (32, 32)}

    def fails(call: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def run(*parts: Any, **named: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nof any kind")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    model, _ = opened("ctkt", Wanted(engine="compile"), Machine())
    with pytest.raises(InputError, match=r"take --engine torch \(no C\+\+ compiler of any kind"):
        predict(model, **parts)

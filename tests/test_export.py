"""Exports: the package's logits in a process without the package, everything that its user has to know, and what is refused."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.schema import CLASSES
from scoliojax import build
from scoliojax.export import __main__ as export
from scoliojax.export import artefact as exporting
from scoliojax.runs import directory as run_directory
from scoliojax.runs.run import open_run
from scoliojax.scores import calibration, reference
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.metrics import softmax
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.evaluate import make_eval_step
from scoliojax.training.state import create_state
from tests.conftest import ROOT, assert_one_clear_error

ELSEWHERE = """
import sys
import jax, numpy as np
with open("run/export/network.stablehlo", "rb") as file:
    network = jax.export.deserialize(bytearray(file.read()))
given = np.load("given.npz")
found = {}
for name in {key.split("/")[0] for key in given}:
    for key, value in network.call(given[name + "/silhouettes"], given[name + "/frame_mask"]).items():
        found[name + "/" + key] = np.asarray(value)
np.savez("found.npz", **found)
ours = {"scoliojax", "data_pipelines", "configs", "flax", "ml_collections"} & {name.split(".")[0] for name in sys.modules}
assert not ours, ours
"""


@pytest.fixture
def run(tmp_path, tiny_config):
    """A run directory whose network has statistics as after a training, and `make`, which makes it so."""
    workdir = tmp_path / "run"

    def make(spoil: float = 1.0, ranges: bool = True):
        _, params, statistics = build.build_model(tiny_config)
        rng = np.random.default_rng(0)
        moved = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), statistics)
        if "gates" in moved:
            moved = jax.tree.map(lambda leaf: leaf / 10.0, moved)  # maps are darker than noise: more leaves nothing of them
            moved["gates"] = {"low": 0.0 * moved["gates"]["low"], "high": ranges * (1.0 + moved["gates"]["high"])}
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf) * spoil, params)
        state = create_state(params, jax.tree.map(jnp.asarray, moved), build.build_optimizer(tiny_config)[0])
        run_directory.claim(workdir, tiny_config.to_dict(), "0")
        checkpoints = Checkpoints(workdir / "checkpoints", None, print)
        checkpoints.save(state.replace(step=jnp.asarray(3)))
        checkpoints.close()
        return workdir

    return SimpleNamespace(make=make, workdir=workdir, config=tiny_config)


def package(network, silhouettes, frame_mask):
    step = make_eval_step(network.graph)
    output = step(network.state.params, network.state.batch_stats, jnp.asarray(silhouettes), jnp.asarray(frame_mask))
    return np.asarray(output.logits), np.asarray(output.embeddings)  # n p k, n p c


def refer(network) -> None:
    """Keep a reference beside the checkpoint, as an evaluation does: of embeddings around those of a walk of noise."""
    rng = np.random.default_rng(2)
    _, (middle,) = package(network, rng.integers(0, 256, (1, 4, 64, 44), dtype=np.uint8), np.ones((1, 4), bool))
    embeddings = middle + rng.normal(scale=0.1, size=(60, *middle.shape))  # n p c
    kept = reference.fit(embeddings[:40], {4: embeddings[40:], 15: embeddings[40:] * 1.1}, network.digest, synthetic=True)
    reference.write(reference.reference_file(network.directory, network.step), kept)


def check_the_distance(folder, embeddings, frame_mask, network, ours) -> None:
    """By network.json, with numpy alone: the package's distances, and its bounds."""
    said = json.loads((folder / "network.json").read_text(encoding="utf-8"))["typicality"]
    with np.load(folder / said["file"]) as kept:
        apart = np.einsum("npc,pcd->npd", embeddings.astype(np.float64) - kept["mean"], kept["factor"].astype(np.float64))
        frames = frame_mask.sum(axis=1)
        usual = np.interp(np.log(frames), np.log(kept["lengths"]), kept["usual"])
    truth = open_run(network.directory).network("newest").reference
    np.testing.assert_allclose(np.square(apart).mean(axis=(1, 2)), truth.distance(ours), rtol=1e-5)
    judged = [truth.judge(0.0, int(count)) for count in frames]
    np.testing.assert_allclose(usual, [one.usual for one in judged])
    assert said["bound"].startswith(f"{judged[0].bound / judged[0].usual:g} * usual")


@pytest.mark.slow
@pytest.mark.optimised
def test_an_export_gives_the_packages_logits_where_the_package_is_not(run, tmp_path, capsys):
    workdir = run.make()
    bare = open_run(workdir).network("newest")
    kept = Calibration(bare.digest, True, 0.5, 0.4, 0.9, 0.92, 0.88, 66, 60)
    calibration.write(calibration.calibration_file(workdir, 3), kept)
    refer(bare)
    (workdir / "export").mkdir()
    (workdir / "export" / "network.json").write_text("of an earlier export", encoding="utf-8")
    export.main(["--workdir", str(workdir)])
    said = capsys.readouterr().out.splitlines()
    assert "step 3" in said[0]
    assert "synthetic" in said[0]
    assert said[-1] == f"export: {workdir / 'export'}"
    files = {"network.stablehlo", "network.json", "MODEL_CARD.md", "reference.npz"}
    assert {path.name for path in (workdir / "export").iterdir()} == files
    assert not [path for path in workdir.iterdir() if "unfinished" in path.name]

    rng = np.random.default_rng(1)
    given = {}
    for name, counts in {"one frame": [1], "three of a batch": [24, 3, 11]}.items():
        shape = (len(counts), max(counts))
        given[f"{name}/silhouettes"] = rng.integers(0, 256, (*shape, 64, 44), dtype=np.uint8)  # the padding too: it is masked
        given[f"{name}/frame_mask"] = np.arange(shape[1]) < np.array(counts)[:, None]
    np.savez(tmp_path / "given.npz", **given)
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True, timeout=300)
    found = np.load(tmp_path / "found.npz")
    for name in {key.split("/")[0] for key in given}:
        expected, embeddings = package(bare, given[f"{name}/silhouettes"], given[f"{name}/frame_mask"])
        check_the_distance(workdir / "export", found[f"{name}/embeddings"], given[f"{name}/frame_mask"], bare, embeddings)
        np.testing.assert_allclose(found[f"{name}/strip_logits"], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found[f"{name}/logits"], expected.mean(axis=1), rtol=0, atol=1e-5)
    check_the_description(workdir / "export", bare, kept, found["three of a batch/logits"])
    check_the_function_is_frozen_and_folded((workdir / "export" / "network.stablehlo").read_bytes())


@pytest.mark.slow
@pytest.mark.optimised
def test_a_network_that_reads_maps_and_posture_is_exported_with_both(run, tmp_path):
    config = run.config
    config.data.modality, config.model.name, config.data.maps.body_only = "skeletons", "drf", True
    export.main(["--workdir", str(run.make()), "--output", str(tmp_path / "out")])
    said = json.loads((tmp_path / "out" / "network.json").read_text(encoding="utf-8"))  # having written it, it was within 1e-5
    assert [port["name"] for port in said["inputs"]] == ["skeleton_maps", "frame_mask", "asymmetry"]
    assert said["artefact"]["load"].endswith(".call(skeleton_maps, frame_mask, asymmetry)")
    assert said["network"]["name"] == "DRF"
    for words in (
        "0, 0, 0 where a joint was not found; nose, eyes and ears left out",
        "left ankle",
        "body_only=True, sigma=8)",
    ):
        assert words in said["preprocessing"]
    network = open_run(run.workdir).network("newest")
    function = jax.export.deserialize(bytearray((tmp_path / "out" / "network.stablehlo").read_bytes()))
    for port, array in zip(said["inputs"], function.in_avals, strict=True):
        assert port["shape"] == [size if isinstance(size, int) else str(size) for size in array.shape]
    frames, mask, vectors = exporting.synthetic_inputs(network.config)
    assert np.asarray(frames)[0].any(axis=(2, 3)).all(), "a map of the synthetic walk is empty"
    other = function.call(frames, mask, 3.0 * vectors)["logits"] - function.call(frames, mask, vectors)["logits"]
    assert np.abs(other).max() > 1e-4, "the vector changes nothing"
    gates = network.module().gates
    inside = jnp.stack([gates.low[...], gates.high[...]])  # the ranges are in the artefact
    beyond = jnp.stack([gates.low[...] - 1.0, gates.high[...] + 1.0])
    ends = [function.call(frames[:2], mask[:2], one)["logits"] for one in (inside, beyond)]
    np.testing.assert_allclose(*ends, atol=1e-6)


def check_the_description(folder, network, kept, logits):
    said = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    artefact = (folder / "network.stablehlo").read_bytes()
    assert said["artefact"]["sha256"] == hashlib.sha256(artefact).hexdigest()
    assert said["artefact"]["bytes"] == len(artefact)
    assert said["synthetic"] is True
    assert (said["network"]["digest"], said["network"]["step"], said["network"]["name"]) == (network.digest, 3, "ScoNet-MT")
    assert said["classes"] == list(CLASSES)
    function = jax.export.deserialize(bytearray(artefact))
    assert said["artefact"]["platforms"] == list(function.platforms)
    names = sorted(port["name"] for port in said["outputs"])
    assert function.out_tree == jax.tree.structure(dict.fromkeys(names, 0))
    ports = said["inputs"] + sorted(said["outputs"], key=lambda port: port["name"])
    for port, array in zip(ports, [*function.in_avals, *function.out_avals], strict=True):
        assert port["shape"] == [size if isinstance(size, int) else str(size) for size in array.shape]
        assert port["dtype"] == array.dtype.name
    rule = said["probabilities"]
    probabilities = softmax(logits, rule["scale"] / rule["temperature"])
    np.testing.assert_allclose(probabilities, kept.probabilities(logits, network.scale), rtol=1e-6)
    assert said["operating_point"]["threshold"] == kept.threshold
    assert said["checked"]["largest_difference"] <= 1e-5
    assert said["checked"]["largest_relative_difference_of_distance"] <= 1e-5
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "network.stablehlo" in card.splitlines()[0]
    assert "Synthetic walkers, not people" in card


def check_the_function_is_frozen_and_folded(artefact):
    function = jax.export.deserialize(bytearray(artefact))
    text = function.mlir_module()
    assert [str(array.dtype) for array in function.in_avals] == ["uint8", "bool"]  # no parameter comes from outside
    roots = re.findall(r"stablehlo\.(?:rsqrt|sqrt|power).*: (\S+)", text)
    assert roots == ["tensor<?x16x1xf32>"]  # the length of an embedding; a batch norm would have one, too
    assert str(ROOT).encode() not in artefact
    with pytest.raises(ValueError, match="uint8"):
        function.call(np.zeros((1, 2, 64, 44), np.float32), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="64"):
        function.call(np.zeros((1, 2, 64, 64), np.uint8), np.ones((1, 2), bool))


@pytest.mark.slow
@pytest.mark.optimised
def test_a_network_of_bfloat16_is_exported_with_its_rounding(run, tmp_path):
    run.config.precision = "bfloat16"
    run.config.model.channels = (2, 3, 64, 64)  # the last two convolve in the package's own way
    export.main(["--workdir", str(run.make()), "--output", str(tmp_path / "out"), "--step", "3"])
    said = json.loads((tmp_path / "out" / "network.json").read_text(encoding="utf-8"))  # having written it, it was within 1e-5
    assert said["network"]["precision"] == "bfloat16"
    assert said["probabilities"] == {
        "rule": "softmax(logits * scale / temperature)", "scale": 16.0, "temperature": 1.0, "calibrated": False,
    }  # fmt: skip
    assert said["operating_point"] is None
    assert said["typicality"] is None
    assert not (tmp_path / "out" / "reference.npz").exists()


def refused(capsys, *arguments) -> SimpleNamespace:
    with pytest.raises(SystemExit) as stop:
        export.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return SimpleNamespace(returncode=stop.value.code, stdout=out, stderr=err)


def test_mistakes_are_told_in_one_line_and_leave_nothing(run, tmp_path, capsys):
    workdir = run.make()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in (
        (["--workdir", tmp_path / "none"], ["none", "holds no run"]),
        (["--workdir", workdir, "--step", "newst"], ["--step=newst", "newest"]),
        (["--workdir", workdir, "--step", "7"], ["--step=7", "[3]"]),
        (["--workdir", workdir, "--step", "best"], ["best", "--step newest"]),
        (["--workdir", workdir, "--output", other], ["thesis.tex", "new folder"]),
        (["--workdir", workdir, "--output", workdir], ["config.json", "new folder"]),
        (["--workdir", workdir, "--output", other / "thesis.tex"], ["is a file", "new folder"]),
        (["--workdir", workdir, "--format", "onnx"], ["onnx", "stablehlo"]),
    ):
        assert_one_clear_error(refused(capsys, *arguments), *words)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("differences", "word"), [((2e-5, None), "logits"), ((1e-7, 2e-5), "distances from training")])
def test_what_is_not_the_packages_evaluation_is_not_written(run, capsys, monkeypatch, differences, word):
    monkeypatch.setattr(exporting, "serialise", lambda network: b"")
    monkeypatch.setattr(exporting, "largest_difference", lambda *given: differences)
    workdir = run.make()
    assert_one_clear_error(refused(capsys, "--workdir", workdir), word, "2.0e-05", "nothing was written")
    assert not (workdir / "export").exists()


def test_a_network_whose_ranges_nobody_knows_is_not_written(run, capsys):
    run.config.data.modality, run.config.model.name = "skeletons", "drf"
    words = "imported without data, so the ranges of its asymmetry vectors are not known"
    assert_one_clear_error(refused(capsys, "--workdir", run.make(ranges=False)), words)
    assert not (run.workdir / "export").exists()


def test_a_network_that_gives_no_numbers_is_not_written(run, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "serialise", lambda network: b"")
    for spoil, words in ((float("nan"), "its parameters are not finite"), (1e38, "not finite")):
        workdir = run.make(spoil=spoil)
        assert_one_clear_error(refused(capsys, "--workdir", workdir), words)
        assert not (workdir / "export").exists()
        shutil.rmtree(workdir)

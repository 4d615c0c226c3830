"""OpenGait checkpoints in and out: nothing lost on the way, and nothing let in that does not belong there."""

import dataclasses
import errno
import json
import os
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")

from data_pipelines.poses.asymmetry import Normalisation  # noqa: E402
from data_pipelines.poses.synthetic import walk_poses  # noqa: E402
from data_pipelines.schema import CLASSES, SequenceSet  # noqa: E402
from data_pipelines.silhouettes import cut_sides  # noqa: E402
from data_pipelines.sources import open_root  # noqa: E402
from data_pipelines.synthetic import synthetic_walkers  # noqa: E402
from data_pipelines.synthetic import write_tree as write_walkers  # noqa: E402
from scoliojax.errors import RunError  # noqa: E402
from scoliojax.interop import torch_reference  # noqa: E402
from scoliojax.interop.opengait import __main__ as commands  # noqa: E402
from scoliojax.interop.opengait import checkpoint as opengait  # noqa: E402
from scoliojax.interop.opengait import classes  # noqa: E402
from scoliojax.interop.opengait import commands as works  # noqa: E402
from scoliojax.interop.opengait.commands import judge_order  # noqa: E402
from scoliojax.interop.opengait.names import trained  # noqa: E402
from scoliojax.interop.parity import compare as parity  # noqa: E402
from scoliojax.interop.parity.replay import random_batches  # noqa: E402
from scoliojax.runs.cohort import Cohort  # noqa: E402
from scoliojax.runs.environment import read_environment, record_environment  # noqa: E402
from scoliojax.runs.evaluation import Screening, open_network, write_evaluation  # noqa: E402
from scoliojax.runs.run import open_run  # noqa: E402
from scoliojax.runs.training import run_training  # noqa: E402
from scoliojax.scores.evaluation import evaluation_folder  # noqa: E402
from tests.conftest import assert_one_clear_error, run_here, write_tree  # noqa: E402


def distances(ours, theirs) -> dict[str, float]:
    """Relative distance of each tensor, by path."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    return {
        jax.tree_util.keystr(path): float(np.linalg.norm(np.asarray(a) - b) / max(np.linalg.norm(b), 1e-12))
        for (path, a), b in pairs
    }


def test_import_export_import_keeps_every_bit(recorded, tmp_path):
    first = opengait.read(recorded)
    opengait.save(tmp_path / "out.pt", first.model(), first.momentum, first.step, first.optimizer)
    again = opengait.read(tmp_path / "out.pt")
    for name in ("params", "batch_stats", "momentum"):
        assert set(distances(getattr(first, name), getattr(again, name)).values()) == {0.0}, name
    assert (first.step, first.optimizer, first.sizes) == (again.step, again.optimizer, again.sizes)
    original, written = (torch.load(path, weights_only=True) for path in (recorded, tmp_path / "out.pt"))

    def shape(thing):
        if isinstance(thing, dict):
            return {key: shape(value) for key, value in thing.items()}
        if isinstance(thing, list):
            return [shape(value) for value in thing]
        return (tuple(thing.shape), thing.dtype) if isinstance(thing, torch.Tensor) else thing

    assert shape(original) == shape(written)
    assert list(original["model"]) == list(written["model"])
    assert int(written["model"]["BNNecks.bn1d.num_batches_tracked"]) == first.step


def test_distributed_names_and_weights_alone_are_taken(recorded, tmp_path):
    content = torch.load(recorded, weights_only=True)
    torch.save({"model": {f"module.{name}": value for name, value in content["model"].items()}}, tmp_path / "ddp.pt")
    found, whole = opengait.read(tmp_path / "ddp.pt"), opengait.read(recorded)
    assert set(distances(found.params, whole.params).values()) == {0.0}
    assert found.step == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found.momentum))


def test_our_export_loads_strictly_and_trains_on_in_torch(recorded, tmp_path):
    found = opengait.read(recorded)
    opengait.save(tmp_path / "out.pt", found.model(), found.momentum, found.step, found.optimizer)
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    reference = torch_reference.TorchScoNet(*found.sizes)
    reference.load_state_dict(content["model"], strict=True)
    assert [name for name, _ in reference.named_parameters()] == [entry.name for entry in trained(found.sizes)]
    rule, schedule = torch_reference.sgd(reference, found.optimizer)
    rule.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["scheduler"])
    before = [value.detach().clone() for value in reference.parameters()]
    (batch,) = random_batches(0, 1, [0, 0, 1], 2, found.sizes)
    vectors = None if batch.asymmetry is None else torch.from_numpy(batch.asymmetry)
    embeddings, logits = reference(torch.from_numpy(batch.frames), vectors)
    (embeddings.sum() + logits.sum()).backward()
    for number, value in enumerate(reference.parameters()):
        assert rule.state[value]["momentum_buffer"].shape == value.shape, number
    rule.step()
    assert any((a != b).any() for a, b in zip(before, reference.parameters(), strict=True))
    assert rule.param_groups[0]["lr"] == content["scheduler"]["_last_lr"][0]


NETWORKS = {  # sizes, and what a run of them has as `model.name` and `data.modality`
    "ScoNet-MT": (opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 3), ("sconet", "silhouettes")),
    "ScoNet-MT-ske": (opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 3, 2), ("sconet", "skeletons")),
    "DRF": (opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 3, 2, True), ("drf", "skeletons")),
}
SYNTHETIC = (  # walkers to fit the ranges of a DRF on
    "--config.data.name=synthetic", "--config.data.synthetic.subjects=12", "--config.data.synthetic.frames=2",
    "--config.data.partition=1:1:1",
)  # fmt: skip


def drawn_checkpoint(folder: Path, network: str) -> Path:
    """A checkpoint of weights that PyTorch drew."""
    path = folder / f"{network}.pt"
    torch.manual_seed(0)
    torch.save({"model": torch_reference.TorchScoNet(*NETWORKS[network][0]).state_dict()}, path)
    return path


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_has_the_recipe_of_the_files_network(network, tmp_path, capsys):
    sizes, kind = NETWORKS[network]
    config = imported_config(drawn_checkpoint(tmp_path, network), tmp_path / "run")
    assert (config["model"]["name"], config["data"]["modality"]) == kind
    assert config["model"] == {"name": kind[0], "channels": [2, 3, 4, 5], "embedding_dim": 4, "strips": [4, 2]}
    assert config["data"]["balanced"] == sizes.gates
    assert config["loss"]["triplet_label"] == ("class" if sizes.gates else "sequence")
    assert ("no data were given to fit them on" in capsys.readouterr().out) == sizes.gates
    commands.main(["export", "--workdir", str(tmp_path / "run"), "--output", str(tmp_path / "back.pt")])
    first, again = (opengait.read(path) for path in (tmp_path / f"{network}.pt", tmp_path / "back.pt"))
    assert again.sizes == first.sizes == sizes
    assert set(distances(first.params, again.params).values()) == {0.0}


def test_a_drf_without_its_ranges_is_not_evaluated_and_data_give_them(tmp_path, capsys):
    path = drawn_checkpoint(tmp_path, "DRF")
    imported_config(path, tmp_path / "bare")
    assert "evaluate: " not in capsys.readouterr().out
    for module, *options in (
        ("scoliojax.main", "--mode", "eval", "--workdir"),
        ("scoliojax.export", "--output", tmp_path / "artefact", "--workdir"),
        ("scoliojax.interop.parity", "bfloat16", "--workdir"),
    ):
        result = run_here(module, *options, tmp_path / "bare")
        assert_one_clear_error(result, "imported without data", "ranges", "--config.data.root=DATA, or train on")
        assert result.returncode == 2
    config = ConfigDict(imported_config(path, tmp_path / "fitted", *SYNTHETIC))
    assert "those of the training part of poses of synthetic walkers (12 x 2 frames, seed 0)" in capsys.readouterr().out
    gates = open_run(tmp_path / "fitted").network("newest").state.batch_stats["gates"]
    cohort = Cohort(config)
    ranges = Normalisation.fit(cohort.data.asymmetry[cohort.partition.train])
    np.testing.assert_array_equal(gates["low"], ranges.low)
    np.testing.assert_array_equal(gates["high"], ranges.high)
    assert gates["high"].all()


OTHER_RECIPES = {  # a file, options that are not for it, and words of the line
    "DRF": [
        (["--config", "configs/sconet_mt_ske.py"], "--config=configs/sconet_mt_ske.py has model.name='sconet', but"),
        (["--config", "configs/sconet_mt.py"], "--config=configs/sconet_mt.py has model.name='sconet', but"),
        (["--config.model.name=sconet"], "--config.model.name=sconet, but"),
        (["--config.data.modality=silhouettes"], "data.modality"),
    ],
    "ScoNet-MT-ske": [
        (["--config", "configs/drf.py"], "has model.name='drf', but"),
        (["--config", "configs/sconet.py"], "has data.modality='silhouettes', but"),
        (["--config.data.modality=silhouettes"], "--config.data.modality=silhouettes, but"),
        (["--config.model.name=drf"], "--config.model.name=drf, but"),
    ],
    "ScoNet-MT": [
        (["--config", "configs/drf.py"], "of a network 'sconet' that reads silhouettes; leave it out, or give"),
        (["--config", "configs/sconet_mt_ske.py"], "has data.modality='skeletons', but"),
        (["--config.data.modality=skeletons"], "--config.data.modality=skeletons, but"),
        (["--config.model.inputs=2"], "the config has no 'inputs' here"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "options", "words"), [(network, *case) for network, cases in OTHER_RECIPES.items() for case in cases]
)
def test_a_recipe_of_another_network_is_refused_by_name(network, options, words, tmp_path, capsys):
    path = drawn_checkpoint(tmp_path, network)
    assert words in errors(capsys, "import", path, "--workdir", tmp_path / "run", *options)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("network", [pytest.param("ScoNet-MT-ske", marks=pytest.mark.slow), "DRF"])
def test_verify_compares_the_layers_of_networks_that_read_maps(network, tmp_path, capsys, monkeypatch):
    path = drawn_checkpoint(tmp_path, network)
    commands.main(["verify", str(path)])
    printed = capsys.readouterr().out
    gates = ["channel gate", "strip gate"] if network == "DRF" else []
    names = ["stem", *(f"layer{number}" for number in (1, 2, 3, 4)), *gates, "pooling", "embeddings", "logits"]
    table = [line.split("  ")[0] for line in printed.splitlines()]
    assert [line for line in table if line in names] == names
    assert "3 sequences agree within 0.0001" in printed
    assert ("asymmetry vectors are normalised by their ranges in these data" in printed) == bool(gates)
    for layer in gates:

        class Off(torch_reference.PostureGates):
            def forward(self, asymmetry, parts, layer=layer):
                channels, strips = super().forward(asymmetry, parts)
                return (channels * 1.001, strips) if layer == "channel gate" else (channels, strips * 1.001)

        monkeypatch.setattr(torch_reference, "PostureGates", Off)
        assert f"error: {layer}, embeddings differ" in errors(capsys, "verify", path)
        monkeypatch.undo()


@pytest.mark.slow
def test_verify_and_import_read_the_data_of_the_files_network(tmp_path, capsys):
    """The other kind of data is refused by name."""
    walkers, poses, masks = synthetic_walkers(18, 3), tmp_path / "poses", tmp_path / "masks"
    write_walkers(walkers, poses, lambda row: walk_poses(row, 3, 0))
    write_walkers(walkers, masks)
    drf, silhouettes = drawn_checkpoint(tmp_path, "DRF"), drawn_checkpoint(tmp_path, "ScoNet-MT")
    commands.main(["verify", str(drf), "--data", str(poses)])
    printed = capsys.readouterr().out
    assert "8 sequences agree within" in printed
    assert "class order by 6 negative, 6 neutral, 6 positive sequences" in printed
    part = "--config.data.partition=1:1:1"
    commands.main(["import", str(drf), "--workdir", str(tmp_path / "run"), f"--config.data.root={poses}", part])
    assert open_run(tmp_path / "run").network("newest").state.batch_stats["gates"]["high"].any()
    assert (
        "the ranges of asymmetry vectors, which are not in the file, are those of the training part" in capsys.readouterr().out
    )
    before = sorted(tmp_path.iterdir())
    for path, other, kind in ((drf, masks, "poses"), (silhouettes, poses, "silhouettes")):
        line = errors(capsys, "verify", path, "--data", other)
        assert all(words in line for words in (str(other), kind, "configs/")), line
    assert str(masks) in errors(capsys, "import", drf, "--workdir", tmp_path / "no", f"--config.data.root={masks}", part)
    assert sorted(tmp_path.iterdir()) == before


KINDS = ["cut", "flip", "rename", "reshape", "remove", "retype", "hostile", "zip hostile", "nan", "not a dict"]


class Hostile:
    def __reduce__(self):
        return eval, ("open('hostile-was-here', 'w')",)


def damage(path: Path, out: Path, kind: str, rng: np.random.Generator) -> None:
    """Write a damaged variant of a checkpoint."""
    raw = bytearray(path.read_bytes())
    if kind == "cut":
        raw = raw[: rng.integers(0, len(raw))]
    elif kind == "flip":
        for position in rng.integers(0, len(raw), rng.integers(1, 20)):
            raw[position] ^= int(rng.integers(1, 256))
    if kind in ("cut", "flip"):
        out.write_bytes(raw)
        return
    content = torch.load(path, weights_only=True)
    name = str(rng.choice([name for name, value in content["model"].items() if value.ndim]))
    value = content["model"].pop(name)
    if kind == "rename":
        content["model"][f"{name}x"] = value
    elif kind == "reshape":
        content["model"][name] = value[None]
    elif kind == "retype":
        content["model"][name] = value.long()
    elif kind == "nan":
        content["model"][name] = value * float("nan")
    elif kind == "hostile":
        out.write_bytes(pickle.dumps({"model": {name: Hostile()}}))
        return
    elif kind == "zip hostile":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"model": {name: Hostile()}}))
            archive.writestr("archive/version", "3")
        return
    elif kind == "not a dict":
        content = [content]
    torch.save(content, out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_checkpoints_give_a_clean_error_or_load_correctly(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    whole = opengait.read(checkpoint)
    for kind in KINDS * 15:
        damage(checkpoint, tmp_path / "bad.pt", kind, rng)
        try:
            found = opengait.read(tmp_path / "bad.pt")
        except RunError as error:
            assert "\n" not in str(error)
            continue
        assert kind == "flip", kind  # a byte between the archive's members: nothing that counts was hit
        for name in ("params", "batch_stats", "momentum"):
            assert set(distances(getattr(found, name), getattr(whole, name)).values()) == {0.0}
    assert not list(tmp_path.rglob("hostile-was-here"))


def test_every_difference_is_listed(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    model = content["model"]
    model["extra.weight"] = torch.zeros(3)
    del model["Backbone.forward_block.bn1.bias"]
    model["BNNecks.bn1d.weight"] = model["BNNecks.bn1d.weight"][:-1]
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(RunError) as caught:
        opengait.read(tmp_path / "bad.pt")
    for words in ("unknown: extra.weight;", "missing: Backbone.forward_block.bn1.bias;", "shape: BNNecks.bn1d.weight is ("):
        assert words in str(caught.value)


@pytest.fixture
def quickly_compiled(monkeypatch):
    """Programs without most of the compiler's optimisations, where what they compute is not the question."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as conftest's way to compile reads it
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.long
@pytest.mark.usefixtures("quickly_compiled")
def test_a_run_comes_here_is_evaluated_trains_on_and_goes_back(checkpoint, tmp_path, capsys):
    workdir, out = tmp_path / "run", tmp_path / "back.pt"
    first = opengait.read(checkpoint)
    overrides = {
        "data.root": write_tree(tmp_path / "tree", per_class=4, frames=3),
        "data.partition": "1:1:1",
        "data.subjects_per_batch": 2,
        "data.clips_per_subject": 2,
        "data.frames_per_clip": 3,
        "data.synthetic.frames": 3,
        "data.sequences_per_eval_batch": 1,  # on every device
        "train.steps": first.step + 2,
    }
    options = [f"--config.{key}={value}" for key, value in overrides.items()]
    config = ConfigDict(imported_config(checkpoint, workdir, *options))

    commands.main(["export", "--workdir", str(workdir), "--output", str(out)])
    again = opengait.read(out)
    assert set(distances(first.momentum, again.momentum).values()) == {0.0}
    bare = [dataclasses.replace(one, params={}, batch_stats={}, momentum={}, tensors={}) for one in (first, again)]
    assert bare[0] == bare[1]

    write_evaluation(*open_network(open_run(workdir), "newest"), "test", Screening())
    assert f"test-step-{first.step:06d}" in capsys.readouterr().out
    run_training(config, workdir)  # on all devices of this process, and back to one for the export below
    assert f"going on from step {first.step}" in capsys.readouterr().out
    line = json.loads((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert line["learning_rate"] == pytest.approx(0.1 * 0.1**2)  # past both milestones of the recorded run
    commands.main(["export", "--workdir", str(workdir), "--output", str(out)])
    assert opengait.read(out).step == first.step + 2
    commands.main(["export", "--workdir", str(workdir), "--output", str(out), "--step", str(first.step + 2)])
    assert "best" in errors(capsys, "export", "--workdir", workdir, "--output", out, "--step", "best")
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# back.pt\n")
    assert "| accuracy | " in card
    assert (
        f"Came from {checkpoint.name}, step {first.step}, class order negative,neutral,positive (assumed), of another" in card
    )
    assert "has the classes in the order negative, neutral, positive (OpenGait's present order)" in card
    with pytest.raises(SystemExit):
        commands.main(["export", "--workdir", str(workdir), "--output", str(tmp_path / "second.pt")])
    assert not (tmp_path / "second.pt").exists()

    logits, changed = parity.compare_bfloat16(workdir, 9)
    assert 0.0 < logits.measured < 0.1
    assert changed.measured * 9 == pytest.approx(round(changed.measured * 9))


def imported_config(checkpoint, workdir, *options) -> dict:
    commands.main([*map(str, ["import", checkpoint, "--workdir", workdir, *options])])
    return json.loads((workdir / "config.json").read_text(encoding="utf-8"))


def test_the_command_line_goes_before_the_file_and_the_file_before_the_recipe(checkpoint, tmp_path, capsys):
    config = imported_config(checkpoint, tmp_path / "a", "--config.optimizer.learning_rate=0.003")
    assert config["optimizer"]["learning_rate"] == 0.003
    assert config["optimizer"]["milestones"] == list(opengait.read(checkpoint).optimizer["milestones"])
    content = torch.load(checkpoint, weights_only=True)
    torch.save({"model": content["model"]}, tmp_path / "weights.pt")
    assert opengait.read(tmp_path / "weights.pt").optimizer is None
    published = imported_config(tmp_path / "weights.pt", tmp_path / "b")["optimizer"]
    assert config["precision"] == "float32"
    assert imported_config(checkpoint, tmp_path / "half", "--config.precision=bfloat16")["precision"] == "bfloat16"
    recipe = ("--config", "configs/sconet_mt.py")
    assert imported_config(checkpoint, tmp_path / "recipe", *recipe)["precision"] == "bfloat16"
    published["milestones"] = tuple(published["milestones"])
    assert published == {"name": "sgd", **opengait.PUBLISHED_OPTIMIZER}
    error = errors(capsys, "import", checkpoint, "--workdir", tmp_path / "c", "--config.model.embedding_dim=5")
    assert "--config.model.embedding_dim=5" in error
    assert "leave it out" in error
    assert not (tmp_path / "c").exists()


def errors(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        commands.main([*map(str, arguments)])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    (line,) = (line for line in printed.splitlines() if "error" in line.lower())
    return line


@pytest.mark.slow
def test_verify_prints_every_layer_and_mistakes_get_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    commands.main(["verify", str(checkpoint)])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("stem", "layer1", "layer4", "pooling", "embeddings", "logits"))
    assert "class order of the file: negative,neutral,positive (assumed), not judged without --data; files of" in printed

    for factor in (1.001, float("nan")):

        class Off(torch_reference.TorchScoNet):
            def pool(self, features, factor=factor):
                return super().pool(features) * factor

        monkeypatch.setattr(torch_reference, "TorchScoNet", Off)
        assert "pooling" in errors(capsys, "verify", checkpoint)

    (tmp_path / "bad.pt").write_bytes(b"x")
    assert "bad.pt" in errors(capsys, "verify", tmp_path / "bad.pt")
    assert "does not exist" in errors(capsys, "import", tmp_path / "none.pt", "--workdir", tmp_path / "run")
    assert "is not empty" in errors(capsys, "import", checkpoint, "--workdir", tmp_path)
    assert "--strips" in errors(capsys, "import", checkpoint, "--workdir", tmp_path / "run", "--strips", 16, 8)
    assert "no config.json" in errors(capsys, "export", "--workdir", tmp_path, "--output", tmp_path.parent / "out.pt")
    assert "unexpected argument" in errors(capsys, "verify", checkpoint, "--steps=3")
    mistaken = errors(capsys, "import", checkpoint, "--workdir", tmp_path / "run", "--config.train.step=3")
    assert all(words in mistaken for words in ("--config.train.step=3", "steps"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def test_verify_measures_large_embeddings_by_their_size(checkpoint, tmp_path, capsys):
    """A network of few steps has embeddings of hundreds, which float32 cannot hold to 2e-5."""
    content = torch.load(checkpoint, weights_only=False)
    content["model"]["FCs.fc_bin"] *= 1e4
    torch.save(content, tmp_path / "large.pt")
    commands.main(["verify", str(tmp_path / "large.pt")])
    (line,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("embeddings"))
    assert float(line[1]) > 2e-5 > float(line[2])


DISTANCES = [  # a layer; its largest distance absolute, of its largest value, and of that where it exceeds 1; whether it passes
    ("stem", (9.0, 0.9e-4, 9.0), True),
    ("stem", (1e-9, 1.1e-4, 1e-9), False),
    ("embeddings", (0.9e-4, 0.9e-4, 1.9e-5), True),
    ("embeddings", (0.9e-4, 0.9e-4, 2.1e-5), False),
    ("logits", (0.9e-4, 0.9e-4, 2.1e-5), False),
    ("logits", (1e-9, 1.1e-4, 1e-9), False),
]


@pytest.mark.parametrize(("layer", "distances", "passes"), DISTANCES)
def test_verify_holds_outputs_to_a_tolerance_of_their_own(layer, distances, passes, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(works, "layer_distances", lambda *_: {"layer1": np.zeros(3), layer: np.array(distances)})
    if passes:
        commands.main(["verify", str(checkpoint)])
    else:
        assert f"error: {layer} differ by more than" in errors(capsys, "verify", checkpoint)


def test_a_network_of_another_number_of_classes_is_no_run_here(tmp_path, capsys):
    sizes, path = opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 74), tmp_path / "people.pt"
    torch.save(torch_reference.TorchScoNet(*sizes).state_dict(), path)
    assert opengait.read(path).sizes == sizes
    assert "has 74 classes; a run here has negative, neutral" in errors(capsys, "import", path, "--workdir", tmp_path / "run")
    for command in (["import", path, "--workdir", tmp_path / "run"], ["verify", path]):
        line = errors(capsys, *command, "--classes", OLD)
        assert f"--classes={OLD}, but {path} has 74 classes; leave it out" in line
    assert [one.name for one in tmp_path.iterdir()] == ["people.pt"]


def test_an_export_that_cannot_be_written_leaves_nothing(checkpoint, tmp_path):
    found = opengait.read(checkpoint)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        opengait.save(tmp_path / "file" / "out.pt", found.model())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


PLACES = {  # an --output that is no place for a checkpoint, and words of the line
    "/": "is a folder",
    "{there}": "is a folder",
    "{there}/none/out.pt": "none does not exist",
    "{there}/file/out.pt": "file does not exist",
    "{there}/pipe": "no regular file",
    "{there}/MODEL_CARD.md": "name of the card",
    "{there}/cards/out.pt": "is a folder",  # MODEL_CARD.md there
    "{there}/other/out.pt": "card of another model",
    "{there}/run/config.json": "is in the run directory",
    "{there}/run/checkpoints/out.pt": "is in the run directory",
    "{there}/link/out.pt": "is in the run directory",
    "{there}/notes.csv": "is a file that is no checkpoint, and would be replaced",
    "~/none/out.pt": "none does not exist",
}


@pytest.mark.parametrize("place", PLACES)
def test_an_export_is_refused_before_anything_is_opened(place, tmp_path, capsys):
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    (tmp_path / "cards" / "MODEL_CARD.md").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "MODEL_CARD.md").write_text("# another.pt\n", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "notes.csv").write_text("subject,sex\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    line = errors(capsys, "export", "--workdir", tmp_path / "run", "--output", place.format(there=tmp_path))
    assert PLACES[place] in line
    assert "--output" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_schedule_that_does_not_fit_the_run_is_found(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["optimizer"]["param_groups"][0]["lr"] = 0.05
    content["scheduler"]["last_epoch"] = 3
    content["optimizer"]["param_groups"][0]["nesterov"] = True
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(RunError) as caught:
        opengait.read(tmp_path / "bad.pt")
    for words in ("learning rate is 0.05", "scheduler is at step 3", "nesterov"):
        assert words in str(caught.value)


OLD = "negative,positive,neutral"
ORDERS = {  # what --classes may say, and the place in the file of each of our classes
    "negative,neutral,positive": [0, 1, 2],
    OLD: [0, 2, 1],
    " Positive , NEUTRAL,negative": [2, 1, 0],
    "neutral,positive,negative": [2, 0, 1],
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_classes_is_undone_in_weights_and_momentum(order, recorded, tmp_path):
    names, whole = classes.parse_order(order), opengait.read(recorded)
    opengait.save(tmp_path / "other.pt", whole.model(), whole.momentum, whole.step, whole.optimizer, names)
    found, taken = opengait.read(tmp_path / "other.pt", classes=names), opengait.read(tmp_path / "other.pt")
    for tree in ("params", "batch_stats", "momentum"):
        assert set(distances(getattr(found, tree), getattr(whole, tree)).values()) == {0.0}
    for tree in (lambda one: one.params["neck"]["kernel"], lambda one: one.momentum["neck"]["kernel"]):
        np.testing.assert_array_equal(tree(taken)[..., ORDERS[order]], tree(whole))
    assert names[1] == CLASSES[1] or not np.array_equal(taken.params["neck"]["kernel"], whole.params["neck"]["kernel"])


ARGUMENTS = {  # options that are refused as such, and words of the line
    "--strips 4 2 --strips 4 2": "--strips is given twice",
    "--strips 4 x": "'x' is no whole number",
    "--strips 3 3": "strips (3, 3) do not fit",
    "--strips 0": "'0' is no whole number from 1",
    f"--classes {OLD} --classes {OLD}": "--classes is given twice",
    "--classes negative,positive": "no order of the three classes",
    "--classes negative,positive,neutral,": "no order of the three classes",
    "--classes negative,negative,neutral": "no order of the three classes",
    "--classes 0,1,2": "no order of the three classes",
    "--classes ,,": "no order of the three classes",
    "--classes": "expected one argument",
}


@pytest.mark.parametrize("given", ARGUMENTS)
def test_options_that_make_no_sense_get_one_line(given, checkpoint, tmp_path, capsys):
    assert ARGUMENTS[given] in errors(capsys, "import", checkpoint, "--workdir", tmp_path / "run", *given.split(" "))
    assert not list(tmp_path.iterdir())


def classed_tree(root: Path, per_class: int) -> Path:
    """A released tree in which a class is a width, so that any network can be made to tell the classes apart."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            folder = root / f"{label * per_class + number:05d}" / name.capitalize() / "000_180"
            folder.mkdir(parents=True)
            frames = np.zeros((4, 64, 64), np.uint8)
            width = 3 + 5 * label + int(rng.integers(3))
            frames[:, 2:62, 32 - width : 32 + width] = 255
            frames[:, 20 : 20 + int(rng.integers(1, 6)), 30:34] = 0
            (folder / "000_180.pkl").write_bytes(pickle.dumps(frames))
    return root


def taught(checkpoint: Path, data: SequenceSet, out: Path, order: str) -> Path:
    """A checkpoint in this order whose columns of the neck are the mean features of each class."""
    found = opengait.read(checkpoint)
    clips = np.stack([cut_sides(data.read(row)) for row in range(len(data))])  # n s 64 44
    embeddings = np.asarray(found.model()(jax.numpy.asarray(clips), train=False).embeddings)  # n p c
    statistics = {"mean": embeddings.mean(0), "var": embeddings.var(0) + 1e-6}  # p c
    features = (embeddings - statistics["mean"]) / np.sqrt(statistics["var"])  # n p c
    kernel = np.stack([features[data.labels == label].mean(0) for label in range(len(CLASSES))], axis=-1)  # p c k
    norm = {"scale": np.ones_like(statistics["mean"]), "bias": np.zeros_like(statistics["mean"])}  # p c
    params = found.params | {"neck": {"kernel": kernel, "norm": norm}}
    learnt = dataclasses.replace(found, params=params, batch_stats=found.batch_stats | {"neck": {"norm": statistics}})
    opengait.save(out, learnt.model(), classes=classes.parse_order(order))
    return out


@pytest.mark.slow
def test_labelled_data_tell_the_order_of_the_classes(checkpoint, tmp_path, capsys):
    tree, other = classed_tree(tmp_path / "tree", 10), "positive,negative,neutral"
    data = open_root(str(tree), print)

    def verdict(order: str, given: str | None = None) -> str:
        named = classes.parse_order(given) if given else None
        found = opengait.read(taught(checkpoint, data, tmp_path / "taught.pt", order), classes=named or CLASSES)
        judge_order(found, data, named)
        *table, line = capsys.readouterr().out.splitlines()
        assert any(row.startswith(OLD) and row.endswith("%") for row in table)
        return line

    assert "neutral,positive, as assumed (best in 100.0% of 1,000 draws" in verdict("negative,neutral,positive")
    assert f"import it with --classes {other}" in verdict(other)
    assert f"{OLD}, as given" in verdict(OLD, OLD)
    with pytest.raises(RunError, match=f"--classes={OLD}, but .* give --classes {other}"):
        verdict(other, OLD)
    few = dataclasses.replace(data, labels=np.where(np.arange(30) < 5, 1, data.labels).astype(np.int32))
    judge_order(opengait.read(checkpoint), few, None)
    assert "cannot tell, with 5 negative, 15 neutral, 10 positive subjects" in capsys.readouterr().out

    lost = opengait.read(checkpoint)
    lost.params["neck"]["kernel"] = np.full_like(lost.params["neck"]["kernel"], np.nan)
    with pytest.raises(RunError, match="the logits of 30 sequences, first 00000"):
        judge_order(lost, data, None)

    taught(checkpoint, data, tmp_path / "old.pt", OLD)
    commands.main(["verify", str(tmp_path / "old.pt"), "--data", str(tree)])
    assert f"import it with --classes {OLD}" in capsys.readouterr().out.splitlines()[-1]


def test_the_order_is_judged_by_one_sequence_of_each_subject_evenly():
    subjects = [f"{label}-{number // 2}" for label, count in enumerate((6, 200, 20)) for number in range(count)]
    labels = np.array([int(subject[0]) for subject in subjects], np.int32)
    names = tuple(map(str, range(len(subjects))))
    data = SequenceSet("x", True, names, tuple(subjects), labels, np.ones(len(names), np.int32), lambda row: np.zeros(1))
    rows = classes.chosen_rows(data)
    assert len({subjects[row] for row in rows}) == len(rows)
    assert np.bincount(labels[rows]).tolist() == [3, classes.SEQUENCES_PER_CLASS, 10]
    chosen = rows[labels[rows] == 1]
    assert (chosen[0], chosen[-1]) == (6, 204)
    assert set(np.diff(chosen)) <= {4, 6}


def test_an_order_is_named_only_where_it_is_clear():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 20)
    told = np.eye(3)[labels] + 0.3 * rng.normal(size=(60, 3))
    for order in ("negative,neutral,positive", OLD, "positive,neutral,negative"):
        names = classes.parse_order(order)
        best, *others = classes.fits(told[:, classes.from_ours(names)], labels)
        assert best.order == names
        assert best.best > classes.CLEAR
        assert best.ranked > max(other.ranked for other in others)
    assert classes.fits(np.zeros((60, 3)), labels)[0].best == 0.0  # one network for all
    clear = [classes.fits(rng.normal(size=(60, 3)), labels)[0].best >= classes.CLEAR for _ in range(50)]
    assert sum(clear) <= 3  # networks that know nothing


@pytest.mark.slow
def test_a_permuted_export_gives_the_same_predictions(checkpoint, tmp_path, capsys):
    """Import, export in the old order, import again: the same bytes with --classes, and other ones without."""
    data = write_tree(tmp_path / "tree", per_class=4, frames=3)
    options = (f"--config.data.root={data}", "--config.data.partition=1:1:1", "--config.data.sequences_per_eval_batch=1")
    imported_config(checkpoint, tmp_path / "first", *options)
    assert (
        "(assumed); files of OpenGait from 2024-06-28 to 2025-08-27 have negative,positive,neutral" in capsys.readouterr().out
    )
    commands.main(["export", "--workdir", str(tmp_path / "first"), "--output", str(tmp_path / "old.pt"), "--classes", OLD])
    assert f"class order in the file: {OLD} (that of files of OpenGait from 2024" in capsys.readouterr().out
    imported_config(tmp_path / "old.pt", tmp_path / "second", "--classes", OLD, *options)
    assert f"class order of the file: {OLD} (given)" in capsys.readouterr().out
    imported_config(tmp_path / "old.pt", tmp_path / "wrong", *options)
    predictions = []
    for name in ("first", "second", "wrong"):
        network, cohort = open_network(open_run(tmp_path / name), "newest")
        write_evaluation(network, cohort, "test", Screening())
        predictions.append((evaluation_folder(tmp_path / name, "test", network.step) / "predictions.csv").read_bytes())
    assert predictions[0] == predictions[1] != predictions[2]
    record_environment(tmp_path / "second")  # as training on does
    assert f"class order {OLD} (given)" in read_environment(tmp_path / "second")["imported_from"]


def test_an_import_that_cannot_be_written_leaves_nothing(checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    assert "is a file" in errors(capsys, "import", checkpoint, "--workdir", tmp_path / "file")
    for place in (tmp_path / "file" / "run", tmp_path / "file" / "runs" / "run"):
        assert "cannot be written" in errors(capsys, "import", checkpoint, "--workdir", place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_import_replaces_nothing_and_removes_what_a_killed_one_left(checkpoint, tmp_path, capsys, monkeypatch):
    (tmp_path / ".run.0123abcd.unfinished" / "checkpoints").mkdir(parents=True)
    (tmp_path / ".other.0123abcd.unfinished").mkdir()
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(works, "record_environment", lambda *_, **__: (tmp_path / "run" / "config.json").touch())  # a training
        assert "another process may have written there; start again" in errors(
            capsys, "import", checkpoint, "--workdir", tmp_path / "run"
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    assert "is not empty" in errors(capsys, "import", checkpoint, "--workdir", tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    commands.main(["import", str(checkpoint), "--workdir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd.unfinished", "run"]


def test_an_export_heeds_the_card_of_another_that_came_first(checkpoint, tmp_path, capsys, monkeypatch):
    commands.main(["import", str(checkpoint), "--workdir", str(tmp_path / "run")])
    card, make_card = tmp_path / "MODEL_CARD.md", works.model_card

    def late(*arguments) -> str:
        card.write_text("# other.pt\n", encoding="utf-8")
        return make_card(*arguments)

    monkeypatch.setattr(works, "model_card", late)
    line = errors(capsys, "export", "--workdir", tmp_path / "run", "--output", tmp_path / "out.pt")
    assert "card of another model" in line
    assert card.read_text(encoding="utf-8") == "# other.pt\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MODEL_CARD.md", "run"]


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "make room on the disk"), (errno.EROFS, "is read-only")])
@pytest.mark.parametrize("command", ["import", "export"])
def test_the_remedy_is_that_of_the_cause(command, number, remedy, checkpoint, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    commands.main(["import", str(checkpoint), "--workdir", str(tmp_path / "run")])
    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr(works, "record_environment", fail)
    given = [checkpoint, "--workdir", tmp_path / "new"]
    if command == "export":
        given = ["--workdir", tmp_path / "run", "--output", tmp_path / "out.pt"]
    line = errors(capsys, command, *given)
    assert f"cannot be written ({os.strerror(number)}); " in line
    assert remedy in line
    assert "another place" not in line or number == errno.EROFS
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

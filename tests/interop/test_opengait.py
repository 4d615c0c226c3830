"""OpenGait checkpoints in and out: nothing lost on the way, and nothing let in that does not belong there."""

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")

from scoliojax.errors import RunError  # noqa: E402
from scoliojax.interop import torch_reference  # noqa: E402
from scoliojax.interop.opengait import __main__ as commands  # noqa: E402
from scoliojax.interop.opengait import checkpoint as opengait  # noqa: E402
from scoliojax.interop.parity import compare as parity  # noqa: E402
from scoliojax.runs.evaluation import Screening, open_network, write_evaluation  # noqa: E402
from scoliojax.runs.run import open_run  # noqa: E402
from scoliojax.runs.training import run_training  # noqa: E402
from tests.conftest import shared_folder, write_tree  # noqa: E402


@pytest.fixture(scope="module")
def golden() -> Path:
    return shared_folder("SCOLIOJAX_GOLDEN", "golden/sconet_tiny")


@pytest.fixture(scope="module")
def checkpoint(golden) -> Path:
    return next(golden.glob("*.pt"))


def distances(ours, theirs) -> dict[str, float]:
    """Relative distance of each tensor, by path."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    return {
        jax.tree_util.keystr(path): float(np.linalg.norm(np.asarray(a) - b) / max(np.linalg.norm(b), 1e-12))
        for (path, a), b in pairs
    }


def test_import_export_import_keeps_every_bit(checkpoint, tmp_path):
    first = opengait.read(checkpoint)
    opengait.save(tmp_path / "out.pt", first.model(), first.momentum, first.step, first.optimizer)
    again = opengait.read(tmp_path / "out.pt")
    for name in ("params", "batch_stats", "momentum"):
        assert set(distances(getattr(first, name), getattr(again, name)).values()) == {0.0}, name
    assert (first.step, first.optimizer, first.sizes) == (again.step, again.optimizer, again.sizes)
    original, written = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "out.pt"))

    def shape(thing):
        if isinstance(thing, dict):
            return {key: shape(value) for key, value in thing.items()}
        if isinstance(thing, list):
            return [shape(value) for value in thing]
        return (tuple(thing.shape), thing.dtype) if isinstance(thing, torch.Tensor) else thing

    assert shape(original) == shape(written)
    assert list(original["model"]) == list(written["model"])
    assert int(written["model"]["BNNecks.bn1d.num_batches_tracked"]) == first.step


def test_distributed_names_and_weights_alone_are_taken(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({"model": {f"module.{name}": value for name, value in content["model"].items()}}, tmp_path / "ddp.pt")
    found, whole = opengait.read(tmp_path / "ddp.pt"), opengait.read(checkpoint)
    assert set(distances(found.params, whole.params).values()) == {0.0}
    assert found.step == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found.momentum))


def test_our_export_loads_strictly_and_trains_on_in_torch(checkpoint, tmp_path):
    found = opengait.read(checkpoint)
    opengait.save(tmp_path / "out.pt", found.model(), found.momentum, found.step, found.optimizer)
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    reference = torch_reference.TorchScoNet(*found.sizes)
    reference.load_state_dict(content["model"], strict=True)
    rule, schedule = torch_reference.sgd(reference, found.optimizer)
    rule.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["scheduler"])
    before = [value.detach().clone() for value in reference.parameters()]
    embeddings, logits = reference(torch.randint(0, 255, (4, 2, 64, 44), dtype=torch.uint8))
    (embeddings.sum() + logits.sum()).backward()
    rule.step()
    assert any((a != b).any() for a, b in zip(before, reference.parameters(), strict=True))
    assert rule.param_groups[0]["lr"] == content["scheduler"]["_last_lr"][0]


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
        content["model"][name] = value.double()
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
    for words in ("extra.weight is unknown", "bn1.bias is missing", "BNNecks.bn1d.weight is ("):
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
    bare = [dataclasses.replace(one, params={}, batch_stats={}, momentum={}) for one in (first, again)]
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
    assert f"Came from {checkpoint.name}, step {first.step}, of another implementation" in card
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
    assert "no config.json" in errors(capsys, "export", "--workdir", tmp_path, "--output", tmp_path / "out.pt")
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


def test_an_export_that_cannot_be_written_leaves_nothing(checkpoint, tmp_path):
    found = opengait.read(checkpoint)
    with pytest.raises(RunError, match="cannot be written"):
        opengait.save(tmp_path / "missing" / "out.pt", found.model())
    assert not list(tmp_path.iterdir())


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

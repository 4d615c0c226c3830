"""Exact against PyTorch: recorded runs of the original, and our own reference at other sizes."""

import dataclasses
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")

from scoliojax.errors import RunError  # noqa: E402
from scoliojax.interop import torch_reference  # noqa: E402
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER  # noqa: E402
from scoliojax.interop.opengait.names import Sizes  # noqa: E402
from scoliojax.interop.parity import __main__ as command  # noqa: E402
from scoliojax.interop.parity import compare as parity  # noqa: E402
from scoliojax.interop.parity.recording import Recording  # noqa: E402
from scoliojax.interop.parity.replay import mixed_triplet_loss, random_batches, random_start, shaken, theirs  # noqa: E402
from scoliojax.interop.parity.rows import Row, compare_exactly, compare_steps  # noqa: E402
from scoliojax.kernels.triplet import triplet_loss  # noqa: E402
from tests.conftest import THOROUGH, assert_one_clear_error, run_here  # noqa: E402
from tests.interop.recordings import change, write_recording  # noqa: E402

# Statistics that float32 does not hold to the tolerance on the recorded run, as docs/parity.md argues; the others it does.
MAY_BE_ROUNDING = ("mean distance", "gradients, worst", "parameters", "statistics", "loss, relative")
MAY_BE_OF_SKELETONS = ("logits", "triplet", "gradients, median")  # three steps of six frames in each of 16 clips
SMALL = Sizes((3, 2, 2, 2), 2, (16, 8, 4), 3)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """What is compiled quickly, and otherwise than for training, is compiled as quickly as can be."""
    if os.environ["SCOLIOJAX_TEST_FLAGS"]:
        monkeypatch.setattr(parity, "UNOPTIMISED", parity.UNOPTIMISED | {"xla_cpu_use_fusion_emitters": False})


def beyond(rows) -> list[Row]:
    return [row for row in rows if not row.passes]


@pytest.mark.long
def test_a_recorded_run_of_the_original(golden):
    recording = Recording(golden)
    skeletons, last = recording.sizes.inputs == 2, len(recording.steps()) - 1
    quickly = parity.UNOPTIMISED if skeletons and not THOROUGH else None
    rows = list(parity.compare_recording(golden, quickly))
    assert all(row.measured <= row.tolerance for row in rows if "float64" in row.quantity)
    assert beyond(rows) == []
    rounded = [row.quantity for row in rows if row.measured > row.tolerance]
    excused = MAY_BE_ROUNDING + (MAY_BE_OF_SKELETONS if skeletons else ())
    assert [name for name in rounded if not any(words in name for words in excused)] == []
    assert all(row.measured <= 2e-5 for row in rows if "evaluation" in row.quantity)
    names = " ".join(row.quantity for row in rows)
    parts = (
        "padded batch: logits",
        "one by one: share",
        "violations",
        "gradients, worst",
        "gradients, median",
        "cross entropy",
    )
    for part in (*parts, f"step {last}: loss", *(["f1", "step 0: mean distance"] if not skeletons else [])):
        assert part in names


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording at other sizes, with two falls of the learning rate.

    Its batch norms see few clips, which makes a lot of every rounding.
    """
    return write_recording(tmp_path_factory.mktemp("recording"), SMALL, [0, 0, 2, 0], frames=2, seed=3)


@pytest.mark.slow
def test_another_recording_is_held_to_its_own_rounding(recording):
    rows = list(parity.compare_recording(recording, parity.UNOPTIMISED))
    assert beyond(rows) == []
    counted = ("violations", "predictions", "float64", "metrics")
    assert [row for row in rows if not row.rounding and not any(words in row.quantity for words in counted)] == []
    assert len(rows) == 47
    assert all(row.measured <= 1e-3 for row in rows if "float64" in row.quantity)  # the first step is held to 1e-6


# Each of the sizes is compiled once; the numbers that run through the program are drawn and cost little. Float64 where the
# recording above has it compiled already.
@pytest.mark.long
@pytest.mark.parametrize(
    ("sizes", "clips", "frames", "exactly"),
    [
        pytest.param(SMALL, 4, 2, True, id="three strip lists"),
        pytest.param(Sizes((6, 5, 5, 4), 6, (16,), 3, inputs=2, gates=True), 6, 1, False, id="DRF, one frame"),
    ],
)
def test_drawn_networks_against_the_reference(sizes, clips, frames, exactly):
    rng = np.random.default_rng(clips)
    special = [list(range(clips)), [3] * clips]  # positives only themselves, no negatives
    for seed in range(12 if THOROUGH else 4):
        identities = special[seed] if seed < len(special) else rng.integers(0, 3, clips).tolist()
        rows = list(parity.compare_live(sizes, identities, frames, seed, exactly=exactly))
        assert beyond(rows) == [], (seed, identities)
        exact = [row for row in rows if "float64" in row.quantity]
        assert len(exact) == 10 * exactly
        assert all(row.measured <= row.tolerance for row in exact), (seed, identities)


def wrong_epsilon(monkeypatch, folder):
    """The same recording by a PyTorch whose batch norms add 1e-3 instead of 1e-5 to a variance."""
    holding = torch_reference.holding

    def other(*arguments):
        net = holding(*arguments)
        for module in net.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.eps = 1e-3
        return net

    with monkeypatch.context() as patch:
        patch.setattr(torch_reference, "holding", other)
        write_recording(folder, SMALL, [0, 0, 2, 0], frames=2, seed=3)


@pytest.mark.slow
def test_an_error_in_another_recording_is_found(recording, tmp_path, monkeypatch):
    """Every array that is compared, off by what rounding does not explain; a recording does not excuse its own errors."""

    def found(folder) -> list[str]:
        return [row.quantity for row in beyond(parity.compare_recording(folder, parity.UNOPTIMISED, exactly=False))]

    def off_by(share):
        return lambda array: array * (1.0 + share)

    def add(amount):
        return lambda array: array + amount

    cases = {  # each changes its own row, so one folder can have them all
        "step 0: gradients, worst": ("train", "grad0__Backbone.forward_block.conv1.conv.weight", off_by(1e-2)),
        "step 0: loss": ("train", "step0__total", off_by(1e-3)),
        "step 1: loss": ("train", "step1__total", off_by(5e-2)),
        "cross entropy": ("train", "step0__ce_loss", off_by(1e-3)),
        "step 0: logits": ("train", "step0__logits", add(1e-3)),
        "step 0: embeddings": ("train", "step0__embeddings", off_by(1e-3)),
        "violations": ("train", "step0__triplet_num", add(1)),
        "step 0: parameters": ("train", "after1__FCs.fc_bin", off_by(1e-3)),
        "step 0: statistics": ("train", "after1__BNNecks.bn1d.running_var", off_by(1e-2)),  # the biased variance, say
        "one by one: logits": ("eval", "logits", add(1e-3)),
        "padded batch: embeddings": ("eval", "embeddings", off_by(1e-3)),
        "predictions": ("eval", "pred", lambda array: (array + 1) % 3),
        "f1": ("metrics", "f1", off_by(1e-6)),
    }
    folder = shutil.copytree(recording, tmp_path / "all")
    for file, name, function in cases.values():
        change(folder, file, **{name: function})
    rows = found(folder)
    assert [words for words in cases if not any(words in row for row in rows)] == []
    assert len(rows) == len(cases) + 3  # those of the evaluation are two each

    folder = shutil.copytree(recording, tmp_path / "gradient")
    change(folder, "train", **{"grad0__FCs.fc_bin": off_by(1e-2)})
    assert found(folder) == ["step 0: gradients, worst tensor, of its norm"]

    wrong_epsilon(monkeypatch, tmp_path / "epsilon")
    assert len(found(tmp_path / "epsilon")) > 5


def test_figures_and_mean_distances_may_be_missing_where_maps_are_read(drf_recording, tmp_path):
    folder = shutil.copytree(drf_recording, tmp_path / "recording")
    whole = Recording(folder)
    (folder / "metrics.npz").unlink()
    without(folder, "train", "step0/mean_dist")
    with pytest.raises(RunError, match="lacks step0/mean_dist"):  # those of the second step are there
        Recording(folder)
    without(folder, "train", "step1/mean_dist")
    bare = Recording(folder)
    assert [step.mean_distance is None for step in (*whole.steps(), *bare.steps())] == [False, False, True, True]
    assert list(parity.compare_metrics(bare)) == []
    assert len(list(parity.compare_metrics(whole))) == 4


@pytest.mark.parametrize("counts", [(4, 1, 1), (2, 2, 2)])
def test_triplets_of_unequal_classes_are_those_of_the_original(counts):
    """Its rows of pairs, where no row is of one anchor; for equal classes they are all triplets."""
    rng = np.random.default_rng(sum(counts))
    alike = rng.permutation(np.repeat(np.arange(3), counts))
    embeddings = rng.normal(size=(len(alike), 2, 3)).astype(np.float32)  # n p c
    theirs = torch_reference.triplet_loss(torch.from_numpy(embeddings).swapaxes(1, 2), torch.from_numpy(alike), 0.5, True)
    ours = mixed_triplet_loss(jnp.asarray(embeddings), jnp.asarray(alike), 0.5)
    for found, expected in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    every = triplet_loss(jnp.asarray(embeddings), jnp.asarray(alike), 0.5)
    assert bool(np.allclose(every.loss, ours.loss, rtol=1e-5)) == (len(set(counts)) == 1)


def test_a_difference_is_found():
    sizes = Sizes((2, 2, 2, 2), 2, (1,), 3)
    start, batches = random_start(sizes, 0), random_batches(0, 1, [0, 0, 1], 1, sizes)

    def steps(tensors, dtype):
        return theirs(tensors, sizes, batches, PUBLISHED_OPTIMIZER, dtype)

    (exact,), single, another = (
        steps(*one) for one in ((start, torch.float64), (start, torch.float32), (shaken(start, 1e-7), torch.float32))
    )

    def quantities(wrong) -> tuple[str, str]:
        """The rows that are beyond, in float64 and in float32."""
        rows = compare_steps([wrong], single, [exact], batches[0], sizes, lambda number: another if number else single)
        return tuple(
            " ".join(row.quantity for row in beyond(some)) for some in (compare_exactly([wrong], [exact], [exact]), rows)
        )

    assert quantities(exact) == ("", "")
    for name in ("embeddings", "logits", "triplet", "violations", "loss"):
        wrong = quantities(dataclasses.replace(exact, **{name: getattr(exact, name) + 1e-2}))
        assert all(name in words for words in wrong), name
    for name in ("gradients", "parameters", "statistics"):
        arrays = getattr(exact, name)
        last = next(reversed(arrays))
        for other in (arrays[last] * 1.5 + 1.0, arrays[last] * np.nan):
            wrong = quantities(dataclasses.replace(exact, **{name: arrays | {last: other}}))
            assert all(name in words for words in wrong), name


def test_chaos_has_a_bound():
    assert Row("x", 1.8, 0.9, 0.6).verdict == "chaos"
    assert Row("x", 1.8, 1.9, 0.6).verdict == "beyond"
    assert Row("x", 1.8, float("nan"), 0.6).verdict == "beyond"


def test_not_a_number_is_never_within():
    assert not Row("x", 1.0, float("nan")).passes
    assert not Row("x", 1.0, 2.0, float("nan")).passes
    assert not Row("x", 1e-3, 0.6, 100.0).passes  # nothing that large is rounding


def test_the_command_prints_every_row_and_fails_beyond_one(tmp_path, monkeypatch, capsys):
    rows = [Row("good", 1e-3, 1e-4), Row("off", 1e-3, 3e-3, 1e-3)]
    monkeypatch.setattr(parity, "compare_recording", lambda folder: iter(rows))
    monkeypatch.setattr("sys.argv", ["parity", "recording", str(tmp_path)])
    command.main()
    printed = capsys.readouterr().out
    assert "| good | 1e-03 |  | 1.0e-04 | within |" in printed
    assert "| off | 1e-03 | 1.0e-03 | 3.0e-03 | rounding |" in printed
    rows.append(Row("wrong", 1e-3, 5e-3, 1e-3))
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2
    assert "| wrong | 1e-03 | 1.0e-03 | 5.0e-03 | beyond |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "kind"), [((), (1, False)), (("--network=sconet_mt_ske",), (2, False)), (("--network=drf",), (2, True))]
)
def test_the_command_takes_live_steps_of_each_network(options, kind, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(parity, "compare_live", lambda sizes, *_, **__: taken.append(sizes) or [Row("good", 1e-3, 1e-4)])
    command.main(["live", *options])
    assert [(sizes.inputs, sizes.gates) for sizes in taken] == [kind]
    assert run_here("scoliojax.interop.parity", "live", "--network=gaitset").returncode == 2


def without(folder, file, *names):
    arrays = dict(np.load(folder / f"{file}.npz"))
    np.savez(folder / f"{file}.npz", **{name: value for name, value in arrays.items() if name not in names})


def put(file, name, value):
    """Write an array of a recording, there or not."""
    return lambda folder: np.savez(folder / f"{file}.npz", **dict(np.load(folder / f"{file}.npz")) | {name: value})


def cut(file):
    return lambda folder: os.truncate(folder / f"{file}.npz", (folder / f"{file}.npz").stat().st_size // 2)


FC = "FCs.fc_bin"
DAMAGES = {  # what is done to a recording, and words of the line
    **{f"{file} cut": (cut(file), f"{file}.npz is damaged (BadZipFile") for file in ("train", "eval", "metrics")},
    "eval of another kind": (lambda folder: (folder / "eval.npz").write_text("x", encoding="utf-8"), "eval.npz is damaged"),
    "eval of objects": (put("eval", "pred", np.array([None])), "eval.npz is damaged (ValueError"),
    "eval of one array": (lambda folder: np.save((folder / "eval.npz").open("wb"), np.ones(2)), "eval.npz is damaged"),
    "no pred": (lambda folder: without(folder, "eval", "pred"), "eval.npz lacks pred"),
    "no sequence": (lambda folder: without(folder, "eval", "seq1"), "eval.npz lacks seq1"),
    "fewer logits": (put("eval", "logits", np.zeros((1, 3, 28))), "logits is float64 (1, 3, 28), expected numbers (2, 3"),
    "an empty sequence": (put("eval", "seq0", np.zeros((0, 64, 64), np.uint8)), "seq0 is uint8 (0, 64, 64), expected"),
    "texts": (put("eval", "pred", np.array(["a", "b"])), "pred is <U1 (2,), expected numbers"),
    "no figure": (lambda folder: without(folder, "metrics", "f1"), "metrics.npz lacks f1"),
    "other labels": (put("metrics", "labels", np.full(50, 3)), "metrics.npz: labels are 3 to 3, expected 0 to 2"),
    "a tensor less": (lambda folder: without(folder, "train", f"init/{FC}"), "train.npz: init/: FCs.fc_bin is missing"),
    "tensors less": (
        lambda folder: without(folder, "train", *(f"init/BNNecks.bn1d.{name}" for name in ("weight", "bias"))),
        "train.npz lacks init/BNNecks.bn1d.weight, init/BNNecks.bn1d.bias; copy or record it again",
    ),
    "a tensor more": (put("train", "init/other", np.ones(3)), "train.npz has init/other, which no ScoNet has"),
    "a gradient of a statistic": (put("train", "grad0/BNNecks.bn1d.running_var", np.ones(3)), "which no ScoNet has"),
    "no gradient": (lambda folder: without(folder, "train", f"grad0/{FC}"), "train.npz lacks grad0/FCs.fc_bin"),
    "another later tensor": (put("train", f"after3/{FC}", np.ones(3)), "after3/FCs.fc_bin is float64 (3,), expected numbers ("),
    "no last step": (lambda folder: without(folder, "train", f"after5/{FC}"), "train.npz lacks after5/FCs.fc_bin"),
    "no step": (lambda folder: without(folder, "train", *(f"step{i}/sils" for i in range(5))), "train.npz lacks step0/sils"),
    "a step less": (lambda folder: without(folder, "train", "step2/sils"), "train.npz lacks step2/sils"),
    "no rate": (lambda folder: without(folder, "train", "step4/lr"), "train.npz lacks step4/lr"),
    "a rate that is none": (put("train", "step4/lr", np.nan), "train.npz: step4/lr is nan, expected a learning rate"),
    "other clips": (put("train", "step3/sils", np.zeros((4, 2, 64, 44))), "step3/sils is float64 (4, 2, 64, 44), expected"),
    "a class more": (put("train", "step1/labels", np.array([0, 1, 2, 7])), "step1/labels are 0 to 7, expected 0 to 2"),
}  # fmt: skip


@pytest.fixture(scope="module")
def drf_recording(tmp_path_factory):
    """One of a DRF, with six clips of which two have each class."""
    sizes = SMALL._replace(inputs=2, gates=True)
    return write_recording(tmp_path_factory.mktemp("drf"), sizes, [0, 0, 1, 1, 2, 2], frames=1, seed=3, steps=2, falls=(1,))


def without_gates(folder):
    """A recording that begins with a ScoNet that reads silhouettes, and goes on with a DRF."""
    names = [name for name in np.load(folder / "train.npz").files if name.startswith("init/PGA")]
    without(folder, "train", *names)
    stem = f"init/{STEM}"
    put("train", stem, np.load(folder / "train.npz")[stem][:, :1])(folder)


STEM = "Backbone.forward_block.conv1.conv.weight"
GATE = "PGA.channel_attention.weight"
DRF_DAMAGES = {
    "no vectors": (lambda folder: without(folder, "train", "step1/pav"), "train.npz lacks step1/pav"),
    "no vectors of sequences": (lambda folder: without(folder, "eval", "pav"), "eval.npz lacks pav"),
    "fewer vectors": (put("eval", "pav", np.zeros((1, 8, 3))), "pav is float64 (1, 8, 3), expected numbers (2, 8, 3)"),
    "vectors of other pairs": (put("train", "step0/pav", np.zeros((6, 9, 3))), "step0/pav is float64 (6, 9, 3), expected"),
    "raw vectors": (put("train", "step0/pav", np.full((6, 8, 3), 12.5)), "step0/pav is 12.5 to 12.5, expected normalised"),
    "vectors that are not finite": (put("eval", "pav", np.full((2, 8, 3), np.nan)), "pav is nan to nan, expected normalised"),
    "silhouettes": (put("train", "step1/maps", np.zeros((6, 1, 64, 64))), "step1/maps is float64 (6, 1, 64, 64), expected"),
    "no maps": (lambda folder: without(folder, "train", "step1/maps"), "train.npz lacks step1/maps"),
    "a sequence of silhouettes": (put("eval", "seq1", np.zeros((3, 64, 64))), "seq1 is float64 (3, 64, 64), expected"),
    "a gate less": (lambda folder: without(folder, "train", f"init/{GATE}"), f"train.npz lacks init/{GATE}"),
    "a gate's gradient less": (lambda folder: without(folder, "train", f"grad0/{GATE}"), f"train.npz lacks grad0/{GATE}"),
    "classes that cannot be paired": (
        put("train", "step0/labels", np.array([0, 0, 0, 1, 1, 2])), "step0/labels has 3, 2, 1 clips of a class, which the",
    ),
    "the network of another": (without_gates, "train.npz has after1/PGA.channel_attention.bias, "),
}  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGES, *(f"DRF: {name}" for name in DRF_DAMAGES)])
def test_a_damaged_recording_is_named_with_file_key_and_remedy(damage, request, tmp_path):
    of_drf = damage.startswith("DRF: ")
    spoil, words = DRF_DAMAGES[damage.removeprefix("DRF: ")] if of_drf else DAMAGES[damage]
    folder = shutil.copytree(request.getfixturevalue("drf_recording" if of_drf else "recording"), tmp_path / "recording")
    spoil(folder)
    result = run_here("scoliojax.interop.parity", "recording", folder)
    assert_one_clear_error(result, f"error: {folder}{os.sep}", ".npz", words, "; copy or record it again")
    assert result.returncode == 2


def test_a_recording_beside_the_checkpoint_of_another_network(recording, tmp_path):
    folder = shutil.copytree(recording, tmp_path / "recording")
    torch.save(torch_reference.TorchScoNet(*SMALL._replace(embedding_dim=3)).state_dict(), folder / "ScoNet-00005.pt")
    result = run_here("scoliojax.interop.parity", "recording", folder)
    assert_one_clear_error(result, "ScoNet-00005.pt has Sizes(", "embedding_dim=3", "train.npz beside it Sizes(", "again")


def test_a_folder_that_is_no_recording(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "train.npz", x=np.zeros(1))
    monkeypatch.setattr("sys.argv", ["parity", "recording", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "eval.npz, metrics.npz is missing" in line

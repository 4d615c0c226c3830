"""Exact against PyTorch: recorded runs of the original, and our own reference at other sizes."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")

from scoliojax.errors import RunError  # noqa: E402
from scoliojax.interop.opengait.names import Sizes  # noqa: E402
from scoliojax.interop.parity import compare as parity  # noqa: E402
from scoliojax.interop.parity.recording import Recording  # noqa: E402
from scoliojax.interop.parity.replay import random_batches, random_start, theirs  # noqa: E402
from tests.conftest import assert_one_clear_error, run_module, shared_folder  # noqa: E402

# What float32 does not hold, and docs/parity.md argues: everything else has to be within its tolerance as it stands.
MAY_BE_ROUNDING = ("mean distance", "gradients, worst", "parameters", "statistics", "loss, relative")


def beyond(rows) -> list[parity.Row]:
    return [
        row
        for row in rows
        if not row.passes or (row.measured > row.tolerance and not any(name in row.quantity for name in MAY_BE_ROUNDING))
    ]


@pytest.fixture(scope="module")
def golden():
    return shared_folder("SCOLIOJAX_GOLDEN", "golden/sconet_tiny")


@pytest.mark.long
def test_a_recorded_run_of_the_original(golden):
    rows = list(parity.compare_recording(golden))
    assert beyond(rows) == []
    names = " ".join(row.quantity for row in rows)
    for part in ("padded batch: logits", "one by one: predictions", "violations", "gradients", "step 4: loss", "float64", "f1"):
        assert part in names


# Each case compiles two programs, so only a few, and written down: what a library would draw depends on its version.
@pytest.mark.long
@pytest.mark.parametrize(
    ("channels", "embedding_dim", "strips", "identities", "frames", "seed"),
    [
        pytest.param((3, 4, 5, 5), 6, (16,), [0, 1, 2], 1, 1, id="one frame, positives only themselves"),
        pytest.param((2, 2, 3, 4), 4, (16, 8, 4), [3, 3, 3, 3, 3], 2, 2, id="three strip lists, no negatives"),
        pytest.param((2, 2, 2, 2), 2, (16,), [0, 0, 0], 1, 0, id="the smallest"),
        pytest.param((6, 5, 5, 4), 6, (16,), [0, 0, 2, 0], 2, 10267, id="drawn"),
    ],
)
def test_one_step_against_the_reference(channels, embedding_dim, strips, identities, frames, seed):
    rows = list(parity.compare_live(Sizes(channels, embedding_dim, strips, 3), identities, frames, seed))
    assert [row for row in rows if not row.passes] == []  # a batch norm over three clips makes a lot of every rounding
    exact = [row for row in rows if "float64" in row.quantity]
    assert len(exact) == 10
    assert all(row.measured <= row.tolerance for row in exact)


def test_a_difference_is_found():
    sizes = Sizes((2, 2, 2, 2), 2, (1,), 3)
    start, batches = random_start(sizes, 0), random_batches(0, 1, [0, 0, 1], 1, 3)
    optimizer = parity.PUBLISHED_OPTIMIZER
    (exact,), (single,) = (theirs(start, sizes, batches, optimizer, kind) for kind in (torch.float64, torch.float32))
    for name in ("embeddings", "logits", "triplet", "violations", "loss"):
        wrong = dataclasses.replace(exact, **{name: getattr(exact, name) + 1e-2})
        assert any(name in row.quantity for row in beyond(parity.compare_exactly([wrong], [exact]))), name
        assert any(name in row.quantity for row in beyond(parity.compare_steps([wrong], [single], [[single]], [exact]))), name
    for name in ("gradients", "parameters", "statistics"):
        arrays = dict(getattr(exact, name))
        last = next(reversed(arrays))
        arrays[last] = arrays[last] * 1.5 + 1.0
        wrong = dataclasses.replace(exact, **{name: arrays})
        assert any(name in row.quantity for row in beyond(parity.compare_exactly([wrong], [exact]))), name
        assert any(name in row.quantity for row in beyond(parity.compare_steps([wrong], [single], [[single]], [exact]))), name


def test_not_a_number_in_one_tensor_is_found():
    sizes = Sizes((2, 2, 2, 2), 2, (1,), 3)
    start, batches = random_start(sizes, 0), random_batches(0, 1, [0, 0, 1], 1, 3)
    (exact,) = theirs(start, sizes, batches, parity.PUBLISHED_OPTIMIZER, torch.float64)
    for name in ("gradients", "parameters", "statistics"):
        arrays = dict(getattr(exact, name))
        last = next(reversed(arrays))
        wrong = dataclasses.replace(exact, **{name: arrays | {last: arrays[last] * np.nan}})
        assert any(name in row.quantity for row in beyond(parity.compare_exactly([wrong], [exact]))), name
        assert any(name in row.quantity for row in beyond(parity.compare_steps([wrong], [exact], [[exact]], [exact]))), name


def test_not_a_number_is_never_within():
    assert not parity.Row("x", 1.0, float("nan")).passes
    assert not parity.Row("x", 1.0, 2.0, float("nan")).passes
    assert not parity.Row("x", 1e-3, 0.6, 100.0).passes  # nothing that large is rounding


def test_the_command_prints_every_row_and_fails_beyond_one(tmp_path, monkeypatch, capsys):
    rows = [parity.Row("good", 1e-3, 1e-4), parity.Row("off", 1e-3, 3e-3, 1e-3)]
    monkeypatch.setattr(parity, "compare_recording", lambda folder: iter(rows))
    monkeypatch.setattr("sys.argv", ["parity", "recording", str(tmp_path)])
    parity.main()
    printed = capsys.readouterr().out
    assert "| good | 1e-03 |  | 1.0e-04 | within |" in printed
    assert "| off | 1e-03 | 1.0e-03 | 3.0e-03 | rounding |" in printed
    rows.append(parity.Row("wrong", 1e-3, 5e-3, 1e-3))
    with pytest.raises(SystemExit) as caught:
        parity.main()
    assert caught.value.code == 2
    assert "| wrong | 1e-03 | 1.0e-03 | 5.0e-03 | beyond |" in capsys.readouterr().out


def test_a_folder_that_is_no_recording(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.zeros(1))
    with pytest.raises(RunError, match=r"eval\.npz, metrics\.npz is missing"):
        Recording(tmp_path)
    assert_one_clear_error(run_module("scoliojax.interop.parity", "recording", tmp_path), "eval.npz")

import json

import jax
import numpy as np
import pytest

from scoliojax import build
from scoliojax.checkpoint import Checkpoints, digest
from scoliojax.errors import RunError
from scoliojax.train_state import TrainState, create_state


@pytest.fixture
def state(tiny_config) -> TrainState:
    _, params, stats = build.build_model(tiny_config)
    return create_state(params, stats, build.build_optimizer(tiny_config)[0])


def at_step(state: TrainState, step: int) -> TrainState:
    return jax.tree.map(lambda leaf: leaf + step if leaf.dtype == np.float32 else leaf, state).replace(step=np.int32(step))


@pytest.fixture
def saved(state, tmp_path):
    """Checkpoints of steps 1, 2 and 3 in a folder, closed."""
    store = Checkpoints(tmp_path / "checkpoints", 3, print)
    for step in (1, 2, 3):
        store.save(at_step(state, step))
    store.close()
    return tmp_path / "checkpoints"


def reopen(folder):
    lines: list[str] = []
    return Checkpoints(folder, 3, lines.append), lines


def test_the_newest_comes_back_to_the_bit(saved, state):
    store, lines = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 3))
    assert digest(store.restore(state, 2)) == digest(at_step(state, 2))
    assert not lines


def test_only_the_newest_are_kept(saved, state):
    store, _ = reopen(saved)
    store.save(at_step(state, 4))
    store.close()
    assert reopen(saved)[0].steps() == [2, 3, 4]


def damage_cut(folder):
    largest = max((path for path in (folder / "3").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-50])


def damage_flip(folder):
    largest = max((path for path in (folder / "3").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)


def damage_digest(folder):
    meta = folder / "3" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"digest": "0" * 64}))


def damage_missing(folder):
    for path in (folder / "3").rglob("*"):
        if path.is_file() and "state" in str(path):
            path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_digest, damage_missing])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(saved, state, damage):
    damage(saved)
    with pytest.raises(RunError, match="--step=3"):
        reopen(saved)[0].restore(state, 3)
    store, lines = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 2))
    assert len(lines) == 1
    assert "checkpoint 3 is damaged" in lines[0]
    assert (saved.parent / "damaged-checkpoint-3").is_dir()
    assert reopen(saved)[0].steps() == [1, 2]


def test_nothing_there_and_nothing_whole(tmp_path, state):
    store, _ = reopen(tmp_path / "checkpoints")
    assert store.restore(state) is None
    with pytest.raises(RunError, match="no such checkpoint"):
        store.restore(state, 7)
    store.save(at_step(state, 3))
    store.close()
    damage_digest(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="every checkpoint"):
        reopen(tmp_path / "checkpoints")[0].restore(state)


def test_the_digest_sees_every_bit(state):
    changed = state.replace(params=jax.tree.map(lambda leaf: leaf, state.params))
    assert digest(changed) == digest(state)
    kernel = np.array(changed.params["fc"]["kernel"])
    kernel.view(np.uint32).flat[0] ^= 1
    changed.params["fc"]["kernel"] = kernel
    assert digest(changed) != digest(state)

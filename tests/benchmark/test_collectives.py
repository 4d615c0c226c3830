"""What travels between devices is what docs/pods.md says."""

import jax
import pytest

from configs import sconet_mt
from scoliojax import build
from scoliojax.benchmark.collectives import compile_step
from scoliojax.devices.program import read_collectives
from tests.conftest import ROOT, assert_one_clear_error, run_module

SCALARS = 3 * 16 * 4 + 5 * 4  # three sums a strip of the identity loss; five numbers of the log


def arithmetic(config, devices: int) -> dict[str, int]:
    """Bytes of results on one device, by kind."""
    _, params, batch_stats = build.build_model(config)
    clips = config.data.subjects_per_batch * config.data.clips_per_subject
    embeddings = clips * sum(config.model.strips) * config.model.embedding_dim * 4
    return {
        "all-gather": embeddings + clips * 4,
        "all-reduce": sum(leaf.size * 4 for leaf in jax.tree.leaves((params, batch_stats))) + SCALARS,
        "reduce-scatter": embeddings // devices,
    }


@pytest.mark.slow
@pytest.mark.optimised
def test_the_compiled_step_sends_what_the_arithmetic_says(tiny_config):
    assert jax.device_count() == 4
    found = list(read_collectives(compile_step(tiny_config)))
    sums = {kind: sum(one.bytes for one in found if one.kind == kind) for kind in {one.kind for one in found}}
    assert sums == arithmetic(tiny_config, 4)
    assert sum(one.kind == "all-gather" for one in found) == 2
    assert sum(one.kind == "reduce-scatter" for one in found) == 1


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_documented_bytes_are_those_of_the_arithmetic(devices):
    config = sconet_mt.get_config()
    config.data.subjects_per_batch = devices
    found = arithmetic(config, devices)
    row = [devices, 8 * devices, *(f"{found[kind]:,}" for kind in ("all-reduce", "all-gather", "reduce-scatter"))]
    assert f"| {' | '.join(map(str, row))} |" in (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")


def test_asynchronous_collectives_count_their_results_only():
    program = """
      %a = (f32[2,3]{1,0}, f32[8,3]{1,0}) all-gather-start(f32[2,3]{1,0} %x), dimensions={0}
      %b = f32[8,3]{1,0} all-gather-done((f32[2,3], f32[8,3]) %a)
      %c = (f32[5]{0}, bf16[]) all-reduce(f32[5]{0} %y, bf16[] %z), to_apply=%add
      %d = f32[5]{0} fusion(f32[5]{0} %c), metadata={op_name="all-reduce"}
    """
    assert [tuple(one) for one in read_collectives(program)] == [("all-gather", 1, 96), ("all-reduce", 2, 22)]


@pytest.mark.slow
def test_the_command():
    odd = ["--config.data.subjects_per_batch=3", "--config.data.clips_per_subject=3"]
    result = run_module("scoliojax.benchmark.collectives", "--config=configs/sconet_mt.py:quickstart", *odd, devices=2)
    assert_one_clear_error(result, "3 x data.clips_per_subject=3", "2 devices")
    assert_one_clear_error(run_module("scoliojax.benchmark.collectives"), "--config")

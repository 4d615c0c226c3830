"""What the mesh's devices ask of a step."""

from types import SimpleNamespace

import jax
import pytest

from scoliojax.devices.mesh import FUSION_MEMORY, FUSION_OPTION, compiler_options
from scoliojax.training import evaluate, step

OPTION = {FUSION_OPTION: FUSION_MEMORY["TPU v5 lite"]}


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("TPU v5 lite", "", OPTION),
        ("TPU v5 lite", f"--{FUSION_OPTION}=65536", None),  # the user's own
        ("TPU v4", "", None),
        ("cpu", "", None),
    ],
)
def test_a_fusion_may_take_more_of_the_fast_memory_of_some_tpus(kind, given, expected, monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
    assert compiler_options(SimpleNamespace(device_set=[SimpleNamespace(device_kind=kind)])) == expected


def test_both_steps_are_compiled_with_the_options_of_their_devices(monkeypatch):
    seen = []
    monkeypatch.setattr(jax, "jit", lambda function, **options: seen.append(options["compiler_options"]))
    for module in (evaluate, step):
        monkeypatch.setattr(module, "compiler_options", lambda sharding: {"of": sharding})
    evaluate.make_eval_step(None, "replicated")
    step.make_train_step(None, None, None, None, "replicated")
    assert seen == [{"of": "replicated"}] * 2

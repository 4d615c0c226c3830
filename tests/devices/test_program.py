"""The text of a compiled program is read as its compiler means it."""

import jax
import jax.numpy as jnp
import pytest

from scoliojax.devices.program import Collective, read_collectives, read_instructions

# As compilers write it: tables of source lines, a fused computation, a loop of eight rounds, and the program.
PROGRAM = """HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/scoliojax/training/step.py"
2 "/somewhere/scoliojax/models/resnet9.py"
3 "/somewhere/scoliojax/kernels/batch_norm.py"
4 "/elsewhere/optax/update.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=55 end_line=55 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=27 end_line=27 column=1 end_column=2}
3 {file_name_id=3 function_name_id=1 line=43 end_line=43 column=1 end_column=2}
4 {file_name_id=4 function_name_id=1 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}
3 {file_location_id=3 parent_frame_id=2}
4 {file_location_id=4 parent_frame_id=1}


%fused (param_0: bf16[9,64], param_1: bf16[64,64], param_2: s32[]) -> (f32[64], bf16[9,64]) {
  %param_0 = bf16[9,64]{1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(1)
  %param_2 = s32[] parameter(2)
  %slice.1 = bf16[1,64]{1,0} dynamic-slice(%param_0, %param_2, %param_2), dynamic_slice_sizes={1,64}
  %convolution.1 = bf16[9,64]{1,0} convolution(%slice.1, %param_1), dim_labels=bf_io->bf
  ROOT %tuple.1 = (f32[64]{0}, bf16[9,64]{1,0}) tuple(%param_2, %convolution.1)
}

%body (state: (f32[4])) -> (f32[4]) {
  %state = (f32[4]{0}) parameter(0)
  %get.1 = f32[4]{0} get-tuple-element(%state), index=0
  %add.1 = f32[4]{0:T(128)} add(%get.1, %get.1), metadata={op_name="x" stack_frame_id=4}, backend_config={"estimated_cycles":"10"}
  ROOT %tuple.2 = (f32[4]{0}) tuple(%add.1)
}

%condition (state.1: (f32[4])) -> pred[] {
  %state.1 = (f32[4]{0}) parameter(0)
  ROOT %constant.1 = pred[] constant(false)
}

ENTRY %main (x: bf16[9,64], kernel: bf16[64,64], i: s32[]) -> f32[4] {
  %x = bf16[9,64]{1,0:T(8,128)(2,1)} parameter(0)
  %kernel = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(1)
  %i = s32[]{:T(128)} parameter(2)
  %fusion.1 = (f32[64]{0:T(128)S(1)}, bf16[9,64]{1,0:T(8,128)(2,1)}) fusion(%x, %kernel, /*index=2*/%i), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/conv" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"1200"}}
  %get.2 = f32[64]{0:T(128)S(1)} get-tuple-element(%fusion.1), index=0
  %all-reduce.1 = (f32[64]{0}, f32[]{:T(128)}) all-reduce(%get.2, %i), channel_id=2, to_apply=%condition
  %start = (f32[4]{0}) tuple(%get.2)
  %while.1 = (f32[4]{0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"8"}}
  %cudnn = (bf16[9,64]{1,0}, u8[4096]{0}) custom-call(%x, %x), custom_call_target="__cudnn$convForward"
  ROOT %get.3 = f32[4]{0} get-tuple-element(%while.1), index=0
}
"""  # noqa: E501


def test_every_instruction_has_its_cycles_bytes_and_source_line():
    found = {one.name: one for one in read_instructions(PROGRAM)}
    assert list(found) == ["fusion.1", "all-reduce.1", "add.1", "cudnn"]
    fusion = found["fusion.1"]
    assert (fusion.kind, fusion.times, fusion.cycles) == ("convolution", 1, 1200)
    assert fusion.result == "(f32[64], bf16[9,64])"
    # Of the first operand one row of 64 is read, the kernel and the index wholly; both results are written.
    assert fusion.bytes == 64 * 2 + 64 * 64 * 2 + 4 + 64 * 4 + 9 * 64 * 2
    assert fusion.line == "kernels/batch_norm.py:43, from models/resnet9.py:27"
    assert (found["all-reduce.1"].kind, found["all-reduce.1"].line) == ("all-reduce", "")


def test_what_a_loop_does_counts_as_often_as_the_loop_turns():
    add = next(one for one in read_instructions(PROGRAM) if one.name == "add.1")
    assert (add.kind, add.times, add.cycles) == ("add", 8, 80)
    assert add.bytes == 8 * (16 + 16)  # the operand that is given twice is read once
    assert add.line == "training/step.py:55"  # the innermost line of ours


def test_a_kernel_of_a_library_counts_without_its_workspace():
    kernel = next(one for one in read_instructions(PROGRAM) if one.name == "cudnn")
    assert (kernel.kind, kernel.bytes) == ("convolution", 2 * 9 * 64 * 2)


def test_collectives_count_once_with_their_arrays():
    assert list(read_collectives(PROGRAM)) == [Collective("all-reduce", 2, 64 * 4 + 4)]


@pytest.mark.optimised
def test_the_text_of_this_jax_is_read():
    def work(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.tanh(x) * 2.0, x)

    x = jax.ShapeDtypeStruct((256, 128), jnp.float32)
    found = read_instructions(jax.jit(work).lower(x).compile().as_text() or "")
    assert max(one.times for one in found) == 5
    assert sum(one.bytes for one in found if one.times == 5) >= 5 * 2 * 256 * 128 * 4
    assert "devices/test_program.py" not in "".join(one.line for one in found)  # lines of this package only

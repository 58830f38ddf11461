"""What torch does around compiled code is known by digests of its source; what is not known runs as torch wrote it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.eval_frame as torch_frames
from torch._functorch import aot_autograd
from torch._inductor.output_code import CompiledFxGraph

from unified_guards.dynamo import compat, dispatch, graphs

KNOWN = compat.TORCH >= (2, 13)
supported = pytest.mark.skipif(not KNOWN, reason="the wrappers of this torch have not been read")


def wrapped() -> Any:
    return torch._dynamo.optimize("eager")(lambda x: x)


@supported
def test_the_wrapper_of_a_function_is_known() -> None:
    code, _ = dispatch._open.get(wrapper := wrapped(), (wrapper.__code__, None))
    assert compat.is_known_wrapper(code), compat.digest_of(code)


@supported
def test_the_call_of_a_module_is_known() -> None:
    call = torch_frames.OptimizedModule.__call__
    code, _ = dispatch._open.get(call, (call.__code__, None))
    assert compat.is_known_module_call(code), compat.digest_of(code)


@supported
def test_the_call_of_a_graph_is_known() -> None:
    code = CompiledFxGraph.__call__.__code__
    assert compat.is_known_graph_call(code), compat.digest_of(code)


@supported
def test_what_aotautograd_gives_to_dynamo_is_known() -> None:
    codes = [each for each in aot_autograd.aot_module_simplified.__code__.co_consts if hasattr(each, "co_code")]
    assert graphs._forward_code() is not None, [compat.digest_of(code) for code in codes]


@supported
def test_doctor_is_content() -> None:
    assert dispatch.is_known()


def says(why: str) -> bool:
    """Whether one of the flags that the dispatcher asks tells it to leave a call to torch for this reason."""
    flags = [flag for flag in compat.flags_of_calls() if flag[0] == why]
    holders = [(each if isinstance(each, dict) else vars(each), name, idle) for _, each, name, idle in flags]
    return any(holder.get(name, idle) != idle for holder, name, idle in holders)


def test_a_flag_says_that_fx_traces() -> None:
    said = []

    def traced(x: Any) -> Any:
        said.append(says("kFxTracing"))
        return x

    torch.fx.symbolic_trace(traced)
    assert [*said, says("kFxTracing")] == [True, False]


@pytest.mark.skipif(
    not hasattr(torch_frames, "_use_eager_on_nested_compile"), reason="torch before 2.14 has no such context"
)
def test_a_flag_says_that_what_is_nested_is_not_compiled() -> None:
    with torch_frames._use_eager_on_nested_compile():
        assert says("kTracing")
    assert not says("kTracing")


def test_other_code_is_not_known() -> None:
    code = wrapped.__code__
    assert not compat.is_known_wrapper(code)
    assert not compat.is_known_module_call(code)
    assert not compat.is_known_graph_call(code)


def test_code_without_source_is_not_known() -> None:
    assert compat.digest_of(compile("", "<nowhere>", "exec")) == ""

"""What sends a call the long way, one row of the table in csrc/call/state.h after the other.

In each test the short way was taken before, and it is taken again when the condition has ended.
"""

from __future__ import annotations

import re
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules import module as modules

import unified_guards
from unified_guards.dynamo import compat, install

from ..harness import Watched, assert_same, fixed_order, ones, run_python, static
from ..modes import Visible
from .conditions import CONDITIONS, FRAME_HOOKS, Condition, monitored
from .watching import (
    ARGUMENTS,
    CHANGED,
    HOOKS,
    MISS,
    NOTHING_COMPILED,
    Model,
    long,
    longs,
    short,
    shorts,
    watched,
)

FULLGRAPH = "called from a compiled function with fullgraph=True"
STRATEGY = "Dynamo skips this function, or runs only what is compiled"
FOREIGN = "an entry is checked by torch"


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def goes_long_under(condition: Condition) -> None:
    made = watched(add, ones(), ones())
    x, y = ones(), ones()
    with condition.enter(), long(made.compiled, condition.why):
        got = made.compiled(x, y)
    assert_same(got, add(x, y))
    with short(made.compiled):
        made(x, y)


def test_a_mode_that_dynamo_skips_frames_in_for_good() -> None:
    made = watched(add, ones(), ones())
    with Visible(), long(made.compiled, "a mode of torch functions or of dispatch is active"):
        made(ones(), ones())
    if compat.TORCH >= (2, 14):  # the frame was skipped in the mode alone
        with short(made.compiled):
            made(ones(), ones())
        return
    with long(made.compiled, STRATEGY):
        made.expect(1, ones(), ones())


def test_fake_tensors() -> None:
    made = watched(add, ones(), ones())
    with FakeTensorMode(), long(made.compiled, "a mode of torch functions or of dispatch is active"):
        assert isinstance(made.compiled(ones(), ones()), FakeTensor)
    with short(made.compiled):
        made(ones(), ones())


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition(name: str) -> None:
    goes_long_under(CONDITIONS[name])


@pytest.mark.parametrize("name", FRAME_HOOKS)
def test_a_hook_of_frames(name: str) -> None:
    goes_long_under(FRAME_HOOKS[name])


def test_the_stance_default_is_the_short_way_again() -> None:
    made = watched(add, ones(), ones())
    torch.compiler.set_stance("force_eager")
    with long(made.compiled, "torch.compiler.set_stance() is in effect"):
        made(ones(), ones())
    torch.compiler.set_stance("default")
    with short(made.compiled):
        made(ones(), ones())


def test_a_stance_that_fails_on_recompiles_fails() -> None:
    made = watched(add, ones(), ones())
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="Detected recompile"):
        made(ones(4), ones(4).double())
    with short(made.compiled):
        made(ones(), ones())


def test_the_condition_of_one_thread_is_not_that_of_another() -> None:
    made = watched(add, ones(), ones())
    thread = threading.Thread(target=made, args=(ones(), ones()))
    with CONDITIONS["a tracing context"].enter(), short(made.compiled):
        thread.start()
        thread.join()


def test_symbolic_tracing_raises_as_before() -> None:
    made = watched(add, ones(), ones())
    with (
        long(made.compiled, "torch.fx is tracing"),
        pytest.raises(RuntimeError, match="using FX to symbolically trace"),
    ):
        torch.fx.symbolic_trace(made.compiled)
    with short(made.compiled):
        made(ones(), ones())


def test_jit_tracing_raises_as_before() -> None:
    made = watched(add, ones(), ones())
    with long(made.compiled, "torch.jit is tracing"), pytest.raises(RuntimeError, match=r"torch\.jit\.trace"):
        torch.jit.trace(lambda x, y: made.compiled(x, y), (ones(), ones()))
    with short(made.compiled):
        made(ones(), ones())


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad], ids=["vmap", "grad"])
def test_inside_of_a_transform(transform: Callable[..., Any]) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * x).sum()

    made = watched(function, ones(3))
    with long(made.compiled, "inside a functorch transform"):
        assert_same(transform(made.compiled)(ones(3)), transform(function)(ones(3)))
    with long(made.compiled, STRATEGY):  # Dynamo skips what was called so, for good
        made.expect(1, ones(3))


def test_export_of_a_module_that_calls_it() -> None:
    made = watched(add, ones(), ones())

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return made.compiled(x, x)

    before = shorts(made.compiled)
    exported = torch.export.export(Model(), (ones(),))
    assert shorts(made.compiled) == before
    assert_same(exported.module()(ones()), ones() + ones())
    with short(made.compiled):
        made(ones(), ones())


def test_a_call_from_a_frame_that_dynamo_compiles_is_inlined() -> None:
    made = watched(add, ones(), ones())
    outer = Watched(lambda x: made.compiled(x, x) * 2)
    outer.expect(1, ones())
    with short(outer.compiled), short(made.compiled, calls=0):
        assert_same(outer.compiled(ones()), ones() * 4)


# -- fullgraph ---------------------------------------------------------------------------------------------------------


def test_a_call_from_the_graph_of_a_fullgraph_function() -> None:
    inner = watched(add, ones(), ones())

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            inner.compiled(ones(), ones())
            return graph.forward(*args)

        return run

    outer = torch.compile(lambda x: x * 2, backend=backend, fullgraph=True)
    for _ in range(2):
        outer(ones())
    with short(outer), long(inner.compiled, FULLGRAPH):
        outer(ones())
    with short(inner.compiled):
        inner(ones(), ones())


def test_fullgraph_goes_the_short_way_itself() -> None:
    made = watched(add, ones(), ones(), fullgraph=True)
    with short(made.compiled):
        made.expect(1, ones(), ones())


def test_fullgraph_still_raises_at_a_graph_break() -> None:
    def function(x: torch.Tensor, breaks: bool) -> torch.Tensor:
        if breaks:
            torch._dynamo.graph_break()
        return x + 1

    made = watched(function, ones(), False, fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        made.compiled(ones(), True)
    with short(made.compiled):
        made(ones(), False)


# -- what is called ----------------------------------------------------------------------------------------------------


def test_a_function_with_another_code() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def other(x: torch.Tensor) -> torch.Tensor:
        return x - 1

    made = watched(function, ones())
    own = function.__code__
    function.__code__ = other.__code__
    with long(made.compiled, CHANGED):
        made(ones())
    function.__code__ = own
    with short(made.compiled):
        made(ones())


class OtherModel(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2


def called_as_torch_compile(module: Model) -> Any:
    return torch.compile(module, backend="eager")


def called_as_module_compile(module: Model) -> Any:
    module.compile(backend="eager")
    return module


WAYS = pytest.mark.parametrize("compile_it", [called_as_torch_compile, called_as_module_compile])


def ready(compile_it: Callable[[Model], Any]) -> tuple[Model, Any]:
    module = Model()
    compiled = compile_it(module)
    for _ in range(2):
        compiled(ones(3))
    with short(compiled):
        assert_same(compiled(ones(3)), module.forward(ones(3)))
    return module, compiled


HOOKERS = {
    "forward hook": lambda module: module.register_forward_hook(lambda module, args, output: output + 1),
    "forward pre-hook": lambda module: module.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
    "full backward hook": lambda module: module.register_full_backward_hook(lambda module, grads, others: None),
    "full backward pre-hook": lambda module: module.register_full_backward_pre_hook(lambda module, grads: None),
}


def plainly(module: Model, x: torch.Tensor) -> torch.Tensor:
    """What a call gives without compilation."""
    return modules.Module._call_impl(module, x)


@WAYS
@pytest.mark.parametrize("name", HOOKERS)
def test_a_module_with_hooks(name: str, compile_it: Callable[[Model], Any]) -> None:
    module, compiled = ready(compile_it)
    handle = HOOKERS[name](module)
    with long(compiled, HOOKS):
        assert_same(compiled(ones(3)), plainly(module, ones(3)))
    handle.remove()
    with short(compiled):
        assert_same(compiled(ones(3)), module.forward(ones(3)))


@WAYS
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
@pytest.mark.parametrize(
    "register",
    [modules.register_module_forward_hook, modules.register_module_forward_pre_hook],
    ids=["after", "before"],
)
def test_a_hook_of_all_modules(register: Callable[..., Any], compile_it: Callable[[Model], Any]) -> None:
    module, compiled = ready(compile_it)
    seen: list[torch.nn.Module] = []
    handle = register(lambda module, *rest: seen.append(module))
    with long(compiled, HOOKS):
        compiled(ones(3))
    handle.remove()
    assert module in seen
    with short(compiled):
        compiled(ones(3))


@WAYS
def test_a_module_with_a_forward_of_its_own(compile_it: Callable[[Model], Any]) -> None:
    module, compiled = ready(compile_it)
    module.forward = types.MethodType(OtherModel.forward, module)
    with long(compiled, HOOKS):
        assert_same(compiled(ones(3)), OtherModel.forward(module, ones(3)))
    del module.forward
    with short(compiled):
        assert_same(compiled(ones(3)), Model.forward(module, ones(3)))


@WAYS
def test_a_module_of_another_class(compile_it: Callable[[Model], Any]) -> None:
    module, compiled = ready(compile_it)
    module.__class__ = OtherModel
    with long(compiled, CHANGED):
        assert_same(compiled(ones(3)), OtherModel.forward(module, ones(3)))
    module.__class__ = Model
    with short(compiled):
        assert_same(compiled(ones(3)), Model.forward(module, ones(3)))


@WAYS
def test_a_class_with_another_forward(compile_it: Callable[[Model], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module, compiled = ready(compile_it)
    monkeypatch.setattr(Model, "forward", OtherModel.forward)
    with long(compiled, CHANGED):
        assert_same(compiled(ones(3)), OtherModel.forward(module, ones(3)))


def test_a_whole_call_that_was_compiled_later() -> None:
    module, compiled = ready(called_as_torch_compile)
    module.compile(backend="eager")
    with long(compiled, HOOKS):
        assert_same(compiled(ones(3)), plainly(module, ones(3)))


# -- arguments ---------------------------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "too few": lambda call: call(ones()),
    "none": lambda call: call(),
    "too many": lambda call: call(ones(), ones(), ones()),
    "twice": lambda call: call(ones(), ones(), x=ones()),
    "unknown": lambda call: call(ones(), ones(), other=1),
    "not a string": lambda call: call(ones(), **{1: ones()}),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_do_not_fit_raise_as_before(name: str) -> None:
    made = watched(add, ones(), ones())
    with pytest.raises(TypeError) as plain:
        WRONG[name](add)
    with pytest.raises(TypeError) as raised:
        WRONG[name](made.compiled)
    if name != "not a string":  # Python raises before the wrapper is entered, and names the wrapper
        assert str(raised.value) == str(plain.value)
        assert longs(made.compiled)[ARGUMENTS] == 1
    with short(made.compiled):
        made(ones(), ones())


# -- entries -----------------------------------------------------------------------------------------------------------


def test_nothing_is_compiled() -> None:
    made = Watched(add)
    with long(made.compiled, NOTHING_COMPILED):
        made(ones(), ones())


def test_nothing_is_compiled_any_more() -> None:
    made = watched(add, ones(), ones())
    torch._dynamo.reset()
    with long(made.compiled, NOTHING_COMPILED):
        made.expect(2, ones(), ones())
    with short(made.compiled):
        made.expect(2, ones(), ones())


def test_no_entry_fits() -> None:
    made = watched(add, ones(), ones())
    with long(made.compiled, MISS):
        made.expect(2, ones(2).double(), ones(2).double())
    with short(made.compiled, calls=2):
        made.expect(2, ones(), ones())
        made.expect(2, ones(2).double(), ones(2).double())


def test_the_limit_of_recompilations_is_reached() -> None:
    made = static(add)
    with torch._dynamo.config.patch(recompile_limit=2):
        for size in (2, 3, 4):
            made(ones(size), ones(size))
        assert made.graphs == 2
        with long(made.compiled, STRATEGY):
            made.expect(2, ones(2), ones(2))
        with long(made.compiled, STRATEGY):
            made.expect(2, ones(5), ones(5))


def test_an_entry_that_torch_checks() -> None:
    made = static(add)
    with mock.patch.object(install, "finish"):  # lifts nothing
        made(ones(), ones())
    with long(made.compiled, FOREIGN, calls=2):
        made.expect(1, ones(), ones())
        made.expect(2, ones(2), ones(2))
    with short(made.compiled):  # the newest entry comes first
        made.expect(2, ones(2), ones(2))


def test_the_entry_of_another_backend_on_the_same_code_is_passed_over() -> None:
    one, other = Watched(add), Watched(add)
    one(ones(), ones())
    with long(other.compiled, MISS):
        other.expect(1, ones(), ones())
    with short(one.compiled, calls=2), short(other.compiled, calls=2):
        for _ in range(2):
            one.expect(1, ones(), ones())
            other.expect(1, ones(), ones())


def test_wrappers_with_the_same_backend_share_entries() -> None:
    made = Watched(add)
    again = torch.compile(add, backend=made.backend)
    made(ones(), ones())
    with short(again):
        again(ones(), ones())
    assert made.graphs == 1


def test_a_wrapper_that_isolates_recompiles_has_entries_of_its_own() -> None:
    made = static(add)
    alone = torch.compile(add, backend=made.backend, isolate_recompiles=True, dynamic=False)
    with long(alone, NOTHING_COMPILED):
        alone(ones(), ones())
    made.expect(2, ones(), ones())
    with short(alone), short(made.compiled):
        alone(ones(), ones())
        made.expect(2, ones(), ones())


def test_a_wrapper_that_isolates_recompiles_may_use_the_entries_of_all() -> None:
    made = static(add)
    alone = torch.compile(add, backend=made.backend, isolate_recompiles=True, dynamic=False)
    made.expect(1, ones(), ones())
    with long(alone, NOTHING_COMPILED):  # torch looks there next
        alone(ones(), ones())
    made.expect(1, ones(), ones())


def test_a_hit_moves_its_entry_to_the_front() -> None:
    made = static(add)
    for size in (2, 3, 4):
        made(ones(size), ones(size))

    def order() -> list[Any]:
        return [entry.guard_manager for entry in torch._dynamo.eval_frame._debug_get_cache_entry_list(add.__code__)]

    first = order()
    with short(made.compiled):
        made(ones(3), ones(3))
    assert order() == [first[1], first[0], first[2]]


def test_a_hit_moves_nothing_where_torch_moves_nothing() -> None:
    made = static(add)
    for size in (2, 3):
        made(ones(size), ones(size))

    def order() -> list[Any]:
        return [entry.guard_manager for entry in torch._dynamo.eval_frame._debug_get_cache_entry_list(add.__code__)]

    first = order()
    with fixed_order():
        made(ones(2), ones(2))
    assert order() == first


# -- off ---------------------------------------------------------------------------------------------------------------


def test_the_switch_is_read_by_torch_compile() -> None:
    with unified_guards.config.patch(dispatch=False):
        compiled = torch.compile(add, backend="eager")
    assert "_unified_guards_dispatcher" not in vars(compiled)
    assert compiled.__code__ is not torch.compile(add, backend="eager").__code__


def test_the_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_DISPATCH", "0")
    assert "_unified_guards_dispatcher" not in vars(torch.compile(add, backend="eager"))


def test_uninstall_gives_every_wrapper_its_own_code_back(tmp_path: Path) -> None:
    program = """
        import torch, unified_guards
        import torch._dynamo.eval_frame

        def add(x, y):
            return x + y

        own = torch.compile(add, backend="eager").__code__
        unified_guards.install()
        compiled = torch.compile(add, backend="eager")
        module = torch.compile(torch.nn.Linear(3, 3), backend="eager")
        x = torch.ones(3)
        for _ in range(3):
            compiled(x, x), module(x)
        counts = vars(compiled)["_unified_guards_dispatcher"].counts
        assert counts[0] == 2, counts
        assert compiled.__code__ is not own
        unified_guards.uninstall()
        assert compiled.__code__ is own and module.forward.__code__ is own
        assert "__call__" in vars(torch._dynamo.eval_frame.OptimizeContext)
        assert torch.equal(compiled(x, x), x + x) and module(x).shape == (3,)
        assert vars(compiled)["_unified_guards_dispatcher"].counts == counts
        unified_guards.install()
        compiled(x, x), module(x)
        assert vars(compiled)["_unified_guards_dispatcher"].counts[0] == 3
        """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program))
    done = run_python(str(path))
    assert done.returncode == 0, done.stderr


def test_every_reason_has_a_text_of_its_own() -> None:
    header = Path(__file__).resolve().parents[2] / "csrc" / "call" / "state.h"
    rows = re.findall(r"X\((k\w+), +\"([^\"]*)\"\)", header.read_text())
    assert len(rows) > 20
    assert len({text for _, text in rows}) == len(rows)


def test_a_profiler_of_another_thread() -> None:
    made = watched(add, ones(), ones())
    on, off = threading.Event(), threading.Event()

    def profiled() -> None:
        sys.setprofile(lambda frame, event, argument: None)
        on.set()
        off.wait(60)

    other = threading.Thread(target=profiled, daemon=True)
    other.start()
    on.wait(60)
    with short(made.compiled):
        made(ones(), ones())
    off.set()
    other.join(60)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no sys.monitoring")
def test_a_tool_that_monitors_sees_the_function() -> None:
    """And the module: its call begins in code of torch's that is not the wrapper's."""
    made, module = watched(add, ones(), ones()), Model()
    compiled = torch.compile(module, backend="eager")
    for _ in range(2):
        compiled(ones(3))
    seen: list[str] = []
    with monitored(lambda code, offset: seen.append(code.co_qualname)):
        made.compiled(ones(), ones())
        compiled(ones(3))
    assert [name for name in seen if name in ("add", "Model.forward")] == ["add", "Model.forward"]
    with short(made.compiled), short(compiled):
        made(ones(), ones())
        compiled(ones(3))

"""Who caused a guard: Dynamo, the ShapeEnv while Dynamo traced, or the backend; and the line."""

from __future__ import annotations

import inspect
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.guards import CheckFunctionManager
from torch._dynamo.output_graph import OutputGraph
from torch._dynamo.source import AttrSource, LocalSource
from torch._functorch.aot_autograd import make_boxed_func
from torch._guards import DuplicateInputs, TracingContext, detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor

import unified_guards
from unified_guards.dynamo import provenance
from unified_guards.guards.ir import Guard, Provenance, Test
from unified_guards.guards.names import place

Entries = list[tuple[Guard, Provenance]]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with unified_guards.installed():
        yield


def line_of(function: Callable, text: str) -> int:
    """The line of this file where ``function`` has ``text``."""
    lines, first = inspect.getsourcelines(function)
    (at,) = (at for at, line in enumerate(lines) if text in line)
    return first + at


def entries(function: Callable, which: int = 0) -> Entries:
    """The newest compilation of ``function``, unless told otherwise."""
    guard_set = unified_guards.explain(function).frames[which].guard_set
    assert guard_set is not None
    return list(guard_set.entries())


def made_by(maker: str, function: Callable) -> Entries:
    return [(item, made) for item, made in entries(function) if made.maker == maker]


def sizes(inputs: list) -> list:
    return [item.shape[0] for item in inputs if isinstance(item, torch.Tensor) and item.ndim]


def aot(fw_compiler: Callable, **options: Any) -> Callable:
    return aot_autograd(fw_compiler=fw_compiler, **options)


def nothing(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    return make_boxed_func(gm.forward)


def branches(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    """Compiles one graph for sizes above 4, and one that is wrong for them (so that a wrong hit shows)."""
    if sizes(inputs)[0] > 4:
        return make_boxed_func(gm.forward)
    return make_boxed_func(lambda *args: [result - 100 for result in gm.forward(*args)])


def equates(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    first, second = sizes(inputs)[:2]
    assert first == second
    return make_boxed_func(gm.forward)


def fixes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    int(sizes(inputs)[0])
    return make_boxed_func(gm.forward)


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.sum() * y.sum()


class TestABranchOfTheCompiler:
    def compiled(self) -> Callable:
        return torch.compile(double, backend=aot(branches), dynamic=True)

    def test_is_an_aot_guard_with_its_line(self) -> None:
        self.compiled()(torch.ones(6))
        ((item, made),) = made_by("aot", double)
        assert "L['x'].size()[0]" in str(item) and "5 <=" in str(item)
        assert (made.file, made.line) == (__file__, line_of(branches, "> 4"))

    def test_the_stack_is_one_of_traceback(self) -> None:
        self.compiled()(torch.ones(6))
        ((_, made),) = made_by("aot", double)
        assert isinstance(made.stack, traceback.StackSummary)
        assert made.stack[-1].name == "branches"

    def test_is_what_decides_which_code_runs(self) -> None:
        run = self.compiled()
        assert run(torch.ones(6)).tolist() == [2.0] * 6
        assert run(torch.ones(3)).tolist() == [-98.0] * 3
        assert run(torch.ones(9)).tolist() == [2.0] * 9
        assert run(torch.ones(4)).tolist() == [-98.0] * 4
        assert len(unified_guards.explain(double).frames) == 2

    def test_is_where_the_miss_stops(self) -> None:
        run = self.compiled()
        run(torch.ones(6))
        with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
            run(torch.ones(3))
        ((item, _),) = made_by("aot", double)
        assert unified_guards.explain(double).frames[0].last_failure == str(item)

    def test_on_both_sides_has_both_lines(self) -> None:
        def bounded(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            assert sizes(inputs)[0] > 4
            assert sizes(inputs)[0] < 50
            return make_boxed_func(gm.forward)

        torch.compile(double, backend=aot(bounded), dynamic=True)(torch.ones(6))
        lines = {made.line for _, made in made_by("aot", double)}
        assert lines == {line_of(bounded, "> 4"), line_of(bounded, "< 50")}

    def test_explain_shows_the_maker_and_the_line(self) -> None:
        self.compiled()(torch.ones(6))
        text = str(unified_guards.explain(double))
        assert f"# aot, {place(__file__, line_of(branches, '> 4'))}" in text
        assert "aot 1" in text

    def test_in_the_backend_itself_is_one_too(self) -> None:
        def direct(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            (size,) = (item for item in inputs if isinstance(item, torch.SymInt))
            assert size > 4
            return gm.forward

        torch.compile(double, backend=direct, dynamic=True)(torch.ones(6))
        ((_, made),) = made_by("aot", double)
        assert made.line == line_of(direct, "> 4")


class TestOtherShapeGuardsOfTheBackend:
    def test_equality_of_two_inputs(self) -> None:
        run = torch.compile(dot, backend=aot(equates), dynamic=True)
        with torch.fx.experimental._config.patch(use_duck_shape=False):
            run(torch.ones(5), torch.ones(5))
        ((item, made),) = made_by("aot", dot)
        assert {"L['x'].size()[0]", "L['y'].size()[0]"} == set(str(item).split(" == "))
        assert (made.file, made.line) == (__file__, line_of(equates, "first == second"))

    def test_equality_keeps_unequal_sizes_out(self) -> None:
        run = torch.compile(dot, backend=aot(equates), dynamic=True)
        with torch.fx.experimental._config.patch(use_duck_shape=False):
            run(torch.ones(5), torch.ones(5))
            run(torch.ones(7), torch.ones(7))  # no compilation: it would hit the limit of one
            with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
                run(torch.ones(5), torch.ones(7))

    def test_a_size_made_constant_is_a_maker_more_of_the_tensor_guard(self) -> None:
        torch.compile(double, backend=aot(fixes), dynamic=True)(torch.ones(6))
        ((item, made),) = made_by("aot", double)
        assert item.test is Test.TENSOR
        assert made.code == "L['x'].size()[0] == 6"
        assert (made.file, made.line) == (__file__, line_of(fixes, "int("))

    def test_a_decomposition_has_its_line_below_that_of_the_model(self) -> None:
        def silu(x: torch.Tensor) -> torch.Tensor:
            assert x.shape[0] > 3
            return x * torch.sigmoid(x)

        def model(x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            return torch.nn.functional.silu(y)

        backend = aot(nothing, decompositions={torch.ops.aten.silu.default: silu})
        torch.compile(model, backend=backend, dynamic=True)(torch.ones(6))
        ((item, made),) = made_by("aot", model)
        assert "4 <=" in str(item) and made.stack is not None
        assert [frame.lineno for frame in made.stack] == [line_of(model, "silu(y)"), line_of(silu, "> 3")]


class TestGuardsOfDynamo:
    def model(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 4:
            return x * 2
        return x

    @pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
    def test_are_not_the_backends(self, backend: str) -> None:
        torch.compile(self.model, backend=backend, dynamic=True)(torch.ones(6))
        assert made_by("aot", self.model) == []

    def test_of_shapes_have_the_line_of_the_model(self) -> None:
        torch.compile(self.model, backend="aot_eager", dynamic=True)(torch.ones(6))
        ((item, made),) = made_by("shape_env", self.model)
        assert "5 <=" in str(item)
        assert (made.file, made.line) == (__file__, line_of(TestGuardsOfDynamo.model, "> 4"))

    def test_stay_theirs_beside_one_of_the_backend(self) -> None:
        def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            a = x.sum()
            return a + y.sum() if y.shape[0] > 6 else a

        torch.compile(model, backend=aot(branches), dynamic=True)(torch.ones(5), torch.ones(8))
        assert ["L['x']" in str(item) for item, _ in made_by("aot", model)] == [True]
        assert any("7 <= L['y'].size()[0]" in str(item) for item, _ in made_by("shape_env", model))
        assert len(made_by("dynamo", model)) > 2

    @pytest.mark.parametrize(("fw_compiler", "printed"), [(nothing, 0), (branches, 2)])
    def test_are_printed_again_only_when_the_backend_added_some(self, fw_compiler: Callable, printed: int) -> None:
        with mock.patch.object(provenance, "_as_it_was", wraps=provenance._as_it_was) as earlier:
            torch.compile(double, backend=aot(fw_compiler), dynamic=True)(torch.ones(6))
        assert earlier.call_count == printed


class TestOtherFrames:
    def test_after_a_graph_break_each_has_its_own(self) -> None:
        def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            a = x * 2
            torch._dynamo.graph_break()
            return a.sum() + y

        torch.compile(model, backend=aot(branches), dynamic=True)(torch.ones(6), torch.ones(8))
        assert len(unified_guards.explain(model).frames) == 2
        for which in range(2):
            lines = [made.line for _, made in entries(model, which) if made.maker == "aot"]
            assert lines == [line_of(branches, "> 4")]

    def test_a_compilation_inside_the_compiler_has_its_own(self) -> None:
        def inner(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        def nests(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            with torch._guards.tracing(None):
                torch.compile(inner, backend=aot(branches), dynamic=True)(torch.ones(7))
            assert next(item for item in inputs if isinstance(item, torch.SymInt)) > 3
            return gm.forward

        torch.compile(double, backend=nests, dynamic=True)(torch.ones(6))
        assert [made.line for _, made in made_by("aot", inner)] == [line_of(branches, "> 4")]
        assert [made.line for _, made in made_by("aot", double)] == [line_of(nests, "> 3")]

    def test_an_exception_in_the_backend_leaves_nothing_behind(self) -> None:
        def fails(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            assert next(item for item in inputs if isinstance(item, torch.SymInt)) > 4
            seen.append(TracingContext.get().fake_mode.shape_env)
            raise ValueError("no")

        seen: list = []
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
            torch.compile(double, backend=fails, dynamic=True)(torch.ones(6))
        assert seen[0] not in provenance._known
        assert provenance._thread.call is None

    def test_a_shape_env_is_not_kept(self) -> None:
        kept: list = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            kept.append(weakref.ref(TracingContext.get().fake_mode.shape_env))
            assert next(item for item in inputs if isinstance(item, torch.SymInt)) > 4
            return gm.forward

        torch.compile(double, backend=notes, dynamic=True)(torch.ones(6))
        assert kept[0]() is None or kept[0]() not in provenance._known


class Box:
    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


class TestRelationsOfInputs:
    def overlapping(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a = y + 1
        x.add_(1)
        return x + a

    def test_storage_overlap_has_the_line_that_changes_the_input(self) -> None:
        base = torch.ones(20)
        torch.compile(self.overlapping, backend="aot_eager", dynamic=True)(base[:8], base[10:18])
        ((item, made),) = made_by("aot", self.overlapping)
        assert item.test is Test.OVERLAP
        assert (made.file, made.line) == (__file__, line_of(TestRelationsOfInputs.overlapping, "add_"))

    def test_storage_overlap_is_checked(self) -> None:
        base = torch.ones(20)
        run = torch.compile(self.overlapping, backend="aot_eager", dynamic=True)
        run(base[:8], base[10:18])
        with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
            run(base[:8], base[4:12])

    def same(self, x: torch.Tensor, box: Box) -> torch.Tensor:
        return x + 1

    def duplicates(self, gm: torch.fx.GraphModule, inputs: list) -> Callable:
        pair = DuplicateInputs(LocalSource("x"), AttrSource(LocalSource("box"), "value"))
        TracingContext.get().guards_context.aotautograd_guards.append(pair)
        return gm.forward

    def test_duplicate_inputs_are_the_backends_with_its_line(self) -> None:
        x = torch.ones(3)
        torch.compile(self.same, backend=self.duplicates)(x, Box(x))
        ((item, made),) = made_by("aot", self.same)
        assert item.test is Test.SAME and made.code == "L['x'] is L['box'].value"
        line = line_of(TestRelationsOfInputs.duplicates, "DuplicateInputs(")
        assert (made.file, made.line) == (__file__, line)

    def test_duplicate_inputs_are_checked(self) -> None:
        x = torch.ones(3)
        run = torch.compile(self.same, backend=self.duplicates)
        run(x, Box(x))
        with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
            run(x, Box(torch.ones(3)))

    def test_a_type_that_has_two_sources_is_compared_without_python(self) -> None:
        """Dynamo, from some torch after 2.11 on, asks in a Python function whether they are the same."""

        def model(x: torch.Tensor, box: Box) -> torch.Tensor:
            return x + len(type(box).__name__) + len(box.__class__.__name__)

        run, before = torch.compile(model, backend="eager"), unified_guards.stats()
        for _ in range(3):
            run(torch.ones(3), Box(1))
        after = unified_guards.stats()
        assert (after.hits - before.hits, after.python_callbacks - before.python_callbacks) == (2, 0)
        assert Test.SHAPE not in {item.test for item, _ in entries(model)}

    def test_inputs_that_dynamo_found_to_be_the_same_are_its_own(self) -> None:
        def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

        x = torch.ones(3)
        torch.compile(model, backend="aot_eager")(x, x)
        assert {made.maker for item, made in entries(model) if item.test is Test.SAME} == {"dynamo"}


class TestOrder:
    """Dynamo traces, the backend compiles at once, and only then are guards built."""

    def test_of_events(self) -> None:
        events: list[str] = []

        def backend(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            events.append("backend")
            run = aot(lower)(gm, inputs)
            events.append("backend returns")
            return run

        def lower(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            events.append("fw_compiler")
            return make_boxed_func(lambda *args: events.append("first run") or gm.forward(*args))

        original = CheckFunctionManager.__init__

        def builds(self: Any, *args: Any, **kwargs: Any) -> None:
            events.append("guards")
            original(self, *args, **kwargs)

        with mock.patch.object(CheckFunctionManager, "__init__", builds):
            torch.compile(double, backend=backend, dynamic=True)(torch.ones(6))
        assert events == ["backend", "fw_compiler", "backend returns", "guards", "first run"]

    def test_the_fake_mode_of_the_compiler_is_that_of_the_frame(self) -> None:
        seen: list = []

        def lower(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            seen.append((detect_fake_mode(inputs), TracingContext.get().fake_mode, inputs))
            return make_boxed_func(gm.forward)

        layer = nn.Linear(3, 3)
        torch.compile(layer, backend=aot(lower))(torch.ones(2, 3))
        detected, of_frame, inputs = seen[0]
        assert detected is of_frame
        assert len(inputs) == 3
        assert all(isinstance(item, FakeTensor) and item.fake_mode is of_frame for item in inputs)
        assert all(not isinstance(parameter, FakeTensor) for parameter in layer.parameters())

    def test_shapes_are_dynamos_own(self) -> None:
        """One ShapeEnv, so that what the compiler asks of a size is a guard of the frame."""
        traced: list = []

        def lower(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            traced.append(detect_fake_mode(inputs).shape_env)
            return make_boxed_func(gm.forward)

        original = OutputGraph.__init__

        def notes(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            traced.append(self.shape_env)

        with mock.patch.object(OutputGraph, "__init__", notes):
            torch.compile(double, backend=aot(lower), dynamic=True)(torch.ones(6))
        assert len(traced) == 2 and traced[0] is traced[1]

"""backend(): any Dynamo backend, with fake inputs, its guards lifted without install()."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed, InvalidBackend
from torch._dynamo.guards import CheckFunctionManager
from torch._dynamo.output_graph import OutputGraph
from torch._functorch.aot_autograd import make_boxed_func
from torch._guards import DuplicateInputs, StorageOverlap, TracingContext, detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorConverter
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import unified_guards
from unified_guards.dynamo import install
from unified_guards.dynamo.backend import backend


@pytest.fixture(autouse=True)
def uninstalled() -> Iterator[None]:
    unified_guards.uninstall()
    yield
    unified_guards.uninstall()


WATCHED = [
    (CheckFunctionManager, "__init__"),
    (OutputGraph, "call_user_compiler"),
    (ShapeEnv, "_get_stack_summary"),
    (ShapeEnv, "produce_guards_verbose"),
    (DuplicateInputs, "__init__"),
    (StorageOverlap, "__init__"),
]


def watched() -> list[int]:
    return [id(vars(owner)[name]) for owner, name in WATCHED]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) * x.shape[0]


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def makers(target: Any) -> set[str]:
    """Who made the guards of a function that has one compilation; nobody when they stayed torch's."""
    (frame,) = unified_guards.explain(target).frames
    return set() if frame.guard_set is None else set(frame.guard_set.counts_by_provenance())


def branches(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    """Right for sizes above 4 in one graph and for the others in another, which is told apart by its result."""
    if next(item for item in inputs if isinstance(item, torch.Tensor)).shape[0] > 4:
        return make_boxed_func(gm.forward)
    return make_boxed_func(lambda *args: [result - 100 for result in gm.forward(*args)])


def plain(gm: torch.fx.GraphModule, inputs: list) -> Callable:
    return gm.forward


def own() -> Callable:
    return aot_autograd(fw_compiler=lambda gm, inputs: make_boxed_func(gm.forward))


def name_of(compiler: Any) -> str:
    """The same in every process."""
    return compiler if isinstance(compiler, str) else type(compiler).__name__


@contextlib.contextmanager
def conversions() -> Iterator[list[int]]:
    """The ids of the real tensors that are made fake inside, each as often as it is."""
    converted: list[int] = []
    original = FakeTensorConverter.from_real_tensor

    def counts(converter: Any, mode: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        converted.append(id(tensor))
        return original(converter, mode, tensor, *args, **kwargs)

    with mock.patch.object(FakeTensorConverter, "from_real_tensor", counts):
        yield converted


class TestResults:
    @pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor", own()], ids=name_of)
    @pytest.mark.parametrize("dynamic", [False, True])
    def test_and_gradients_are_those_of_eager(self, compiler: Any, dynamic: bool) -> None:
        layer, x = Layer(), torch.randn(4, 3, requires_grad=True)
        expected = layer(x)
        wanted = torch.autograd.grad(expected.sum(), [x, *layer.parameters()])
        result = torch.compile(layer, backend=backend(compiler), dynamic=dynamic)(x)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(torch.autograd.grad(result.sum(), [x, *layer.parameters()]), wanted)
        assert "dynamo" in makers(Layer.forward)

    def change(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        return x * 3

    def turn(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.t_(x)
        return x + y

    @pytest.mark.parametrize("function", [change, turn])
    @pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
    def test_of_a_graph_that_changes_an_input(self, function: Callable, compiler: str) -> None:
        y = torch.randn(3, 3, requires_grad=True)
        x, same = torch.arange(9.0).view(3, 3), torch.arange(9.0).view(3, 3)
        expected = function(self, x, y)
        (wanted,) = torch.autograd.grad(expected.sum(), y)
        result = torch.compile(function, backend=backend(compiler))(self, same, y)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(same, x)
        torch.testing.assert_close(torch.autograd.grad(result.sum(), y)[0], wanted)

    def test_of_inputs_that_share_memory(self) -> None:
        def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x.mul_(2)
            return x + y

        base, same = torch.arange(8.0), torch.arange(8.0)
        expected = model(base[:6], base[2:])
        result = torch.compile(model, backend=backend("aot_eager"))(same[:6], same[2:])
        torch.testing.assert_close(result, expected)


class TestGuards:
    def test_of_the_fw_compiler_are_lifted_without_install(self) -> None:
        run = torch.compile(double, backend=backend(aot_autograd(fw_compiler=branches)), dynamic=True)
        run(torch.ones(6))
        assert not unified_guards.is_installed()
        assert "aot" in makers(double)

    def test_of_the_fw_compiler_choose_the_code(self) -> None:
        run = torch.compile(double, backend=backend(aot_autograd(fw_compiler=branches)), dynamic=True)
        for size in (6, 3, 9, 4):
            assert run(torch.ones(size)).tolist() == [2.0 if size > 4 else -98.0] * size
        assert len(unified_guards.explain(double).frames) == 2

    def test_of_another_backend_meanwhile_stay_torchs(self) -> None:
        def other(x: torch.Tensor) -> torch.Tensor:
            return x + 3

        def nests(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            with torch._guards.tracing(None):
                torch.compile(other, backend="eager")(torch.ones(2))
            return gm.forward

        torch.compile(double, backend=backend(nests))(torch.ones(2))
        assert makers(double) == {"dynamo"}
        assert makers(other) == set()

    def test_are_lifted_on_both_sides_of_a_graph_break(self) -> None:
        def model(x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            torch._dynamo.graph_break()
            return y * 2

        torch.compile(model, backend=backend("eager"))(torch.ones(2))
        frames = unified_guards.explain(model).frames
        assert [frame.guard_set is not None for frame in frames] == [True, True]

    def test_are_lifted_beside_install(self) -> None:
        with unified_guards.installed():
            torch.compile(double, backend=backend(aot_autograd(fw_compiler=branches)), dynamic=True)(torch.ones(6))
        assert "aot" in makers(double)


class TestTorch:
    def test_is_as_before_once_compiled(self) -> None:
        before = watched()
        during: list[list[int]] = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            during.append(watched())
            return gm.forward

        torch.compile(double, backend=backend(notes))(torch.ones(2))
        assert watched() == before
        assert not set(during[0]) & set(before)

    def test_is_as_before_when_the_compiler_fails(self) -> None:
        def fails(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            raise ValueError("no")

        before = watched()
        with pytest.raises(BackendCompilerFailed, match="no"):
            torch.compile(double, backend=backend(fails))(torch.ones(2))
        assert watched() == before

    def test_is_as_before_when_the_frame_fails_after_the_compiler(self) -> None:
        before = watched()
        with mock.patch.object(OutputGraph, "install_global", side_effect=ValueError("made to fail")):
            with pytest.raises(Exception, match="made to fail"):
                torch.compile(double, backend=backend(plain))(torch.ones(2))
        gc.collect()
        assert watched() == before

    def test_uninstall_waits_for_the_frame_being_compiled(self) -> None:
        before = watched()

        def uninstalls(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            unified_guards.uninstall()
            return gm.forward

        unified_guards.install()
        torch.compile(double, backend=backend(uninstalls))(torch.ones(2))
        assert makers(double) == {"dynamo"}
        assert watched() == before

    def test_is_as_before_after_uninstall(self) -> None:
        before = watched()
        unified_guards.install()
        assert not set(watched()) & set(before)
        unified_guards.uninstall()
        assert watched() == before

    def test_counts_as_installed_only_when_asked_for(self) -> None:
        inside: list[bool] = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            inside.append(unified_guards.is_installed())
            return gm.forward

        torch.compile(double, backend=backend(notes))(torch.ones(2))
        assert inside == [False]
        assert install._marked_count == 0


class TestFakeInputs:
    def seen(self, model: Callable, *args: Any, **options: Any) -> tuple[Any, list, Any, Any]:
        """What a compiler got for ``model``: graph, inputs, the mode that torch detects, the mode of the frame."""
        found: list = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            examples = [node.meta["example_value"] for node in gm.graph.find_nodes(op="placeholder")]
            found.append((examples, inputs, detect_fake_mode(inputs), TracingContext.get().fake_mode))
            return gm.forward

        torch.compile(model, backend=backend(notes), **options)(*args)
        assert len(found) == 1
        return found[0]

    def test_are_the_objects_that_dynamo_traced_with(self) -> None:
        examples, inputs, _, _ = self.seen(Layer(), torch.ones(2, 3))
        assert len(inputs) == 3
        assert all(one is other for one, other in zip(inputs, examples, strict=True))

    def test_are_of_the_mode_that_torch_detects(self) -> None:
        _, inputs, detected, of_frame = self.seen(Layer(), torch.ones(2, 3))
        assert detected is of_frame
        assert all(isinstance(item, FakeTensor) and item.fake_mode is detected for item in inputs)

    def test_of_parameters_stand_beside_the_real_ones(self) -> None:
        layer = Layer()
        _, inputs, _, _ = self.seen(layer, torch.ones(2, 3))
        assert sum(isinstance(item, nn.Parameter) for item in inputs) == 2
        assert not any(isinstance(item, FakeTensor) for item in layer.parameters())

    def test_keep_symbolic_sizes(self) -> None:
        _, inputs, _, _ = self.seen(double, torch.ones(6), dynamic=True)
        assert [type(item) for item in inputs] == [torch.SymInt, FakeTensor]
        assert isinstance(inputs[1].shape[0], torch.SymInt)

    @pytest.mark.parametrize("compiler", ["aot_eager", "inductor", own()], ids=name_of)
    def test_are_converted_once(self, compiler: Any) -> None:
        layer, x = Layer(), torch.ones(2, 3)
        with conversions() as converted:
            torch.compile(layer, backend=backend(compiler))(x)
        assert [converted.count(id(tensor)) for tensor in (x, *layer.parameters())] == [1, 1, 1]

    def test_that_tracing_changed_are_made_again(self) -> None:
        def model(x: torch.Tensor) -> torch.Tensor:
            torch.ops.aten.t_(x)
            return x + 1

        _, (fake,), detected, _ = self.seen(model, torch.ones(2, 3))
        assert list(fake.shape) == [2, 3]
        assert fake.fake_mode is detected

    def test_reals_are_in_the_graph(self) -> None:
        found: list = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            found.extend(node.meta["grapharg"].example for node in gm.graph.find_nodes(op="placeholder"))
            return gm.forward

        x = torch.ones(3)
        torch.compile(double, backend=backend(notes))(x)
        assert found[0] is x


class TestArguments:
    def test_of_backend_reach_the_compiler(self) -> None:
        given: list = []

        def takes(gm: torch.fx.GraphModule, inputs: list, *, level: int, other: str = "b") -> Callable:
            given.append((level, other))
            return gm.forward

        torch.compile(double, backend=backend(takes, level=3))(torch.ones(2))
        assert given == [(3, "b")]

    def test_of_torch_compile_reach_the_compiler_and_win(self) -> None:
        given: list = []

        def takes(gm: torch.fx.GraphModule, inputs: list, **kwargs: Any) -> Callable:
            given.append(kwargs)
            return gm.forward

        torch.compile(double, backend=backend(takes, options={"a": 1}, b=2), options={"a": 3})(torch.ones(2))
        assert given == [{"options": {"a": 3}, "b": 2}]

    def test_that_the_compiler_does_not_take_are_refused_at_once(self) -> None:
        def takes(gm: torch.fx.GraphModule, inputs: list, *, level: int = 0) -> Callable:
            return gm.forward

        with pytest.raises(TypeError, match=r"takes takes no keyword argument 'depth' \(it takes level.*Leave it out"):
            backend(takes, depth=1)

    def test_of_torch_compile_that_the_compiler_does_not_take_are_refused(self) -> None:
        run = torch.compile(double, backend=backend(plain), mode="reduce-overhead")
        with pytest.raises(BackendCompilerFailed, match="plain takes no keyword argument 'mode'") as error:
            run(torch.ones(2))
        assert isinstance(error.value.inner_exception, TypeError)

    @pytest.mark.parametrize("given", [{"mode": "max-autotune-no-cudagraphs"}, {"options": {"max_fusion_size": 8}}])
    def test_of_inductor_are_those_of_torch_compile(self, given: dict[str, Any]) -> None:
        run = torch.compile(double, backend=backend("inductor"), **given)
        assert run(torch.ones(2)).tolist() == [2.0, 2.0]

    def test_of_inductor_are_checked_by_inductor(self) -> None:
        run = torch.compile(double, backend=backend("inductor"), options={"no_such_option": 1})
        with pytest.raises(BackendCompilerFailed, match="no_such_option"):
            run(torch.ones(2))


class TestIdentity:
    def test_an_unknown_name_is_torchs_error(self) -> None:
        with pytest.raises(InvalidBackend, match="no_such_backend"):
            backend("no_such_backend")

    def test_what_is_no_function_is_refused(self) -> None:
        with pytest.raises(TypeError, match="takes a function or the name of a backend; got int"):
            backend(3)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("compiler", "name"), [("aot_eager", "aot_eager"), (plain, "plain")])
    def test_has_the_name_that_logs_show(self, compiler: Any, name: str) -> None:
        assert backend(compiler).__name__ == name

    def test_attributes_are_those_of_the_compiler(self) -> None:
        class Compiler:
            __name__ = "compiler"

            def __call__(self, gm: torch.fx.GraphModule, inputs: list) -> Callable:
                return gm.forward

            def get_compiler_config(self) -> str:
                return "mine"

        made = backend(Compiler())
        assert made.get_compiler_config() == "mine"
        assert not hasattr(made, "no_such_attribute")

    def test_dynamo_reset_resets_the_compiler(self) -> None:
        reset: list[bool] = []

        def resettable(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            return gm.forward

        resettable.reset = lambda: reset.append(True)  # type: ignore[attr-defined]
        torch.compile(double, backend=backend(resettable))(torch.ones(2))
        torch._dynamo.reset()
        assert reset

    def test_of_the_same_compiler_shares_what_was_compiled(self) -> None:
        compiled: list[bool] = []

        def notes(gm: torch.fx.GraphModule, inputs: list) -> Callable:
            compiled.append(True)
            return gm.forward

        for _ in range(2):
            torch.compile(double, backend=backend(notes))(torch.ones(2))
        assert len(compiled) == 1

    def test_of_other_options_does_not(self) -> None:
        compiled: list[int] = []

        def notes(gm: torch.fx.GraphModule, inputs: list, *, level: int) -> Callable:
            compiled.append(level)
            return gm.forward

        for level in range(2):
            torch.compile(double, backend=backend(notes, level=level))(torch.ones(2))
        assert compiled == [0, 1]

    def test_of_a_backend_of_this_kind_is_one_of_its_compiler(self) -> None:
        assert backend(backend(plain)) == backend(plain)

    def test_called_by_hand_passes_everything_on(self) -> None:
        gm = torch.fx.symbolic_trace(double)
        assert backend("eager")(gm, [torch.ones(2)])(torch.ones(2)).tolist() == [2.0, 2.0]


def test_dynamo_is_given_a_backend_without_torch_compile() -> None:
    """Its frame hook asks what it is given for attributes, and must not be called for the code that answers."""
    call = torch._dynamo.optimize(backend("eager"))(lambda x: x + 1)
    assert call(torch.ones(2)).tolist() == [2.0, 2.0]

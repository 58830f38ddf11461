"""What a hit gives back, and what it leaves behind: as the call of the function itself."""

from __future__ import annotations

import collections
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo

import unified_guards

from ..harness import Watched, assert_same, ones
from .watching import longs, short, shorts, watched

Point = collections.namedtuple("Point", "x y")

# -- what is built -----------------------------------------------------------------------------------------------------

RESULTS: dict[str, Callable[[torch.Tensor, Any], Any]] = {
    "a tensor": lambda x, y: x + y,
    "a tuple": lambda x, y: (x + y, x - y),
    "an empty tuple and a tensor": lambda x, y: ((), x + y),
    "a list": lambda x, y: [x + y, x * y],
    "a dict": lambda x, y: {"sum": x + y, "difference": x - y},
    "a dict with keys of two types": lambda x, y: {1: x + y, "one": x},
    "nested": lambda x, y: {"all": [(x + y, {"x": x}), [x * y]]},
    "a named tuple": lambda x, y: Point(x + y, 3),
    "an ordered dict": lambda x, y: collections.OrderedDict(b=x + y, a=x),
    "a set": lambda x, y: (x + y, {1, 2}),
    "constants": lambda x, y: (x + y, 3, "text", None, True, 2.5, -0.0, b"bytes", ...),
    "None": lambda x, y: (x + y, None)[1],
    "an input": lambda x, y: (x + y, x)[1],
    "an input beside others": lambda x, y: (y, x + y, x),
    "a tensor twice": lambda x, y: (x + y,) * 2,
    "a list twice": lambda x, y: (made := [x + y], made),
    "a view of an input": lambda x, y: (x[1:], x + y),
    "the same view twice": lambda x, y: (view := x[1:], view),
    "a size": lambda x, y: (x + y).shape,
    "a number of a size": lambda x, y: (x + y, x.shape[0] + 1),
    "a dtype": lambda x, y: (x + y, x.dtype, x.device),
    "a slice": lambda x, y: (x + y, slice(1, None)),
    "a range": lambda x, y: (x + y, range(3)),
    "a function": lambda x, y: (x + y, ones),
    "more outputs than fit a tuple of eight": lambda x, y: tuple(x + y * at for at in range(40)),
    "no tensor at all": lambda x, y: 5,
    "an f-string": lambda x, y: (x + y, f"{y}"[:0]),
}


def is_shared(result: Any) -> list[tuple[int, int]]:
    """Which parts of a result are the same object."""
    parts: list[Any] = []

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor | list | dict):
            parts.append(value)
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                walk(item)

    walk(result)
    return [(at, to) for at in range(len(parts)) for to in range(at) if parts[at] is parts[to]]


@pytest.mark.parametrize("name", RESULTS)
def test_a_result(name: str) -> None:
    function = RESULTS[name]
    compiled = torch.compile(function, backend="eager", dynamic=False)
    for _ in range(3):
        x, y = ones(), ones() * 2
        got, want = compiled(x, y), function(x, y)
        assert_same(got, want)
        assert is_shared((x, y, got)) == is_shared((x, y, want))


@pytest.mark.parametrize("name", ["a list", "a dict", "nested", "a list twice"])
def test_every_result_is_a_new_object(name: str) -> None:
    compiled = torch.compile(RESULTS[name], backend="eager")
    results = [compiled(ones(), ones()) for _ in range(3)]
    assert len({id(result) for result in results}) == 3


@pytest.mark.parametrize(
    "name", ["a tensor", "a tuple", "a list", "a dict", "nested", "constants", "an input", "an input beside others"]
)
def test_a_result_that_a_plan_can_say(name: str) -> None:
    watched(RESULTS[name], ones(), ones())


def test_an_input_that_is_returned_is_the_input_itself() -> None:
    made = watched(lambda x, y: (x, x + y, y), ones(), ones())
    x, y = ones(), ones()
    with short(made.compiled):
        got = made.compiled(x, y)
    assert got[0] is x and got[2] is y


def test_the_same_tensor_given_twice() -> None:
    made = Watched(lambda x, y: (x, x + y, y))
    x = ones()
    for _ in range(3):
        first, _, last = made(x, x)
        assert first is x and last is x
    made.expect(2, ones(), ones())
    made.expect(2, x, x)


# -- what is written to ------------------------------------------------------------------------------------------------


def test_an_input_that_is_written_to() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        return x * 2

    made = Watched(function)
    for _ in range(3):
        made.expect_fresh(1, lambda: (ones(), ones()))
    x = ones()
    with short(made.compiled):
        made.compiled(x, ones())
    assert_same(x, ones() * 2)


def test_an_input_that_is_written_to_and_returned() -> None:
    made = Watched(lambda x, y: (x.mul_(3), y, x))
    for _ in range(3):
        x, y = ones(), ones()
        first, second, third = made.compiled(x, y)
        assert first is x and second is y and third is x
        assert_same(x, ones() * 3)
    assert made.graphs == 1


def test_dicts_and_lists_that_are_written_to() -> None:
    def function(x: torch.Tensor, table: dict[str, Any], items: list[Any]) -> torch.Tensor:
        table["x"] = x + 1
        table["count"] = 5
        items.append(x * 2)
        return x + 2

    compiled = torch.compile(function, backend="eager")
    for _ in range(4):
        tables: list[tuple[dict[str, Any], list[Any]]] = [({}, []), ({}, [])]
        assert_same(compiled(ones(), *tables[0]), function(ones(), *tables[1]))
        assert_same(tables[0], tables[1])


def test_attributes_that_are_written_to() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count, self.last = 0, None

    def function(x: torch.Tensor, counter: Counter) -> torch.Tensor:
        counter.count += 1
        counter.last = x * 2
        return x + counter.count

    made = torch.compile(function, backend="eager")
    counters = Counter(), Counter()
    for _ in range(6):
        assert_same(made(ones(), counters[0]), function(ones(), counters[1]))
        assert_same(vars(counters[0]), vars(counters[1]))


COUNT = 0


def test_globals_that_are_written_to() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        global COUNT
        COUNT += 1
        return x + COUNT

    compiled = torch.compile(function, backend="eager")
    before = COUNT
    for at in range(1, 7):
        assert_same(compiled(ones()), ones() + before + at)
        assert before + at == COUNT


def test_cells_that_are_written_to() -> None:
    count = 0

    def function(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return x + count

    compiled = torch.compile(function, backend="eager")
    for at in range(1, 7):
        assert_same(compiled(ones()), ones() + at)
        assert count == at


def test_buffers_that_are_written_to() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total += x
            self.last = x * 2
            return self.total + x

    models = Model(), Model()
    compiled = torch.compile(models[0], backend="eager")
    for _ in range(5):
        assert_same(compiled(ones()), models[1](ones()))
        assert_same(models[0].total, models[1].total)
        assert_same(models[0].last, models[1].last)


# -- what the function reads besides its arguments ---------------------------------------------------------------------


def test_defaults_that_are_replaced() -> None:
    def function(x: torch.Tensor, y: Any = 2, *, z: Any = 3) -> torch.Tensor:
        return x * y + z

    made = watched(function, ones())
    function.__defaults__ = (ones() * 5,)
    made.expect(2, ones())
    with short(made.compiled):
        made.expect(2, ones())
    function.__kwdefaults__ = {"z": 7}
    made.expect(3, ones())
    function.__kwdefaults__["z"] = 3
    made(ones())
    function.__defaults__ = (2,)
    with short(made.compiled):
        made.expect(made.graphs, ones())


def test_defaults_that_are_removed() -> None:
    def function(x: torch.Tensor, y: Any = 2, *, z: Any = 3) -> torch.Tensor:
        return x * y + z

    made = watched(function, ones())
    function.__defaults__ = None
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        made.compiled(ones())
    function.__kwdefaults__ = None
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'z'"):
        made.compiled(ones(), 2)


def test_a_default_that_is_returned_is_the_one_of_now() -> None:
    def function(x: torch.Tensor, y: torch.Tensor = ones()) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: B008
        return x + 1, y

    made = watched(function, ones())
    other = ones()
    function.__defaults__ = (other,)
    for _ in range(3):
        assert made.compiled(ones())[1] is other


def test_a_free_variable_that_changes() -> None:
    factor: Any = 2

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * factor

    made = Watched(function, dynamic=False)
    for factor in (2, 2, 3, 2, ones() * 5, ones() * 7, 2, 3):  # noqa: B007
        made(ones())
    assert made.graphs == 3
    with short(made.compiled):
        made.expect(3, ones())


def test_a_free_variable_that_is_not_set() -> None:
    factor = ones()

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * factor

    made = watched(function, ones())
    assert function.__closure__ is not None
    del function.__closure__[0].cell_contents
    with pytest.raises(NameError, match="factor"):
        made.compiled(ones())


SCALE = ones() * 2


def test_a_global_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = watched(lambda x: x * SCALE, ones())
    monkeypatch.setitem(globals(), "SCALE", ones() * 9)
    with short(made.compiled):
        made.expect(1, ones())
    monkeypatch.setitem(globals(), "SCALE", 4)
    made.expect(2, ones())


# -- shapes, gradients -------------------------------------------------------------------------------------------------


def test_dynamic_shapes() -> None:
    def function(x: torch.Tensor, n: int) -> Any:
        return x[1:].reshape(-1) * n, x.shape[0] + n, x.stride(0)

    made = Watched(function, dynamic=True)
    made.expect(1, ones(4, 5), 3)
    with short(made.compiled, calls=3):
        for rows, columns, n in [(6, 5, 4), (7, 8, 9), (4, 5, 3)]:
            made.expect(1, ones(rows, columns), n)


def test_a_storage_offset_that_is_dynamic() -> None:
    made = Watched(lambda x: (x.as_strided((2,), (1,), x.storage_offset()), x.storage_offset() + 1), dynamic=True)
    for at in (2, 3, 4, 5):
        made(torch.arange(9.0)[at:])
    assert shorts(made.compiled) > 0


def test_sizes_that_become_dynamic() -> None:
    made = Watched(lambda x: x * x.shape[0])
    made.expect(1, ones(3))
    made.expect(2, ones(4))
    with short(made.compiled, calls=2):
        made.expect(2, ones(5))
        made.expect(2, ones(6))


def test_gradients() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y).sin().sum()

    made = torch.compile(function, backend="aot_eager")
    for _ in range(4):
        grads = []
        for call in (made, function):
            x, y = ones(requires_grad=True), ones()
            call(x, y).backward()
            grads.append(x.grad)
        assert_same(*grads)
    with short(made):
        made(x, y)


def test_a_leaf_that_needs_no_gradient_is_another_entry() -> None:
    made = Watched(lambda x, y: x * y)
    made.expect(1, ones(requires_grad=True), ones())
    made.expect(2, ones(), ones())
    with short(made.compiled, calls=2):
        made.expect(2, ones(requires_grad=True), ones())
        made.expect(2, ones(), ones())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any]) -> None:
    made = Watched(lambda x, y: x * y)
    made(ones(requires_grad=True), ones())
    for _ in range(3):
        with mode():
            assert not made(ones(requires_grad=True), ones()).requires_grad
        assert made(ones(requires_grad=True), ones()).requires_grad
    assert made.graphs == 2


def test_a_function_that_switches_gradients_off() -> None:
    @torch.no_grad()
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    made = watched(function, ones(requires_grad=True))
    assert not made(ones(requires_grad=True)).requires_grad
    assert torch.is_grad_enabled()


def test_a_call_that_leaves_gradients_off() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return x * 2

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        try:
            compiled(ones(requires_grad=True))
            assert not torch.is_grad_enabled()
        finally:
            torch.set_grad_enabled(True)


# -- graph breaks ------------------------------------------------------------------------------------------------------


def test_what_follows_a_graph_break_is_compiled_as_before() -> None:
    def function(x: torch.Tensor, y: Any) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * y

    made = Watched(function)
    made.expect(2, ones(), 2)
    with short(made.compiled):
        made.expect(2, ones(), 2)
    made.expect(3, ones(), 2.5)
    with short(made.compiled, calls=2):
        made.expect(3, ones(), 2)
        made.expect(3, ones(), 2.5)


def test_a_config_that_is_patched_is_so_for_what_follows_a_graph_break() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    made = Watched(function, dynamic=True)
    made.expect(2, ones())
    with short(made.compiled):
        made.expect(2, ones(4))


def test_a_resumed_frame_that_is_compiled_anew_sees_the_config_that_is_patched() -> None:
    flag: list[Any] = [2]
    seen: list[Any] = []

    def backend(module: Any, _: Any) -> Any:
        seen.append((torch._dynamo.config.assume_static_by_default, torch._dynamo.config.automatic_dynamic_shapes))
        return module

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * flag[0]

    compiled = torch.compile(function, backend=backend, dynamic=True)
    for _ in range(2):
        compiled(ones())
    before = torch._dynamo.config.assume_static_by_default
    flag[0] = 2.5
    graphs = len(seen)
    with short(compiled):
        compiled(ones())
    assert len(seen) > graphs and set(seen) == {seen[0]} and seen[0][0] is not before
    assert torch._dynamo.config.assume_static_by_default is before


def test_a_resumed_frame_compiles_on_the_short_way() -> None:
    flag: list[Any] = [2]

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * flag[0]

    made = Watched(function)
    for _ in range(3):
        made.expect(2, ones())
    flag[0] = 2.5
    with short(made.compiled, calls=2):
        made.expect(3, ones())
        made.expect(3, ones())


def test_a_function_that_is_called_at_a_graph_break_is_compiled() -> None:
    @torch._disable_dynamo(recursive=False)
    def inner(x: torch.Tensor) -> torch.Tensor:
        return x - 1

    def function(x: torch.Tensor) -> torch.Tensor:
        return inner(x + 1) * 2

    made = Watched(function)
    made(ones())
    graphs = made.graphs
    for _ in range(3):
        made.expect(graphs, ones())


def test_prints_are_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        print("in between")
        return x * 2

    compiled = torch.compile(function, backend="eager")
    for _ in range(4):
        compiled(ones())
    assert capsys.readouterr().out == "in between\n" * 4


def test_a_generator_as_argument_is_used_up() -> None:
    def function(x: torch.Tensor, items: Iterator[int]) -> torch.Tensor:
        for item in items:
            x = x + item
        return x

    compiled = torch.compile(function, backend="eager")
    for _ in range(4):
        items = iter(range(4))
        assert_same(compiled(ones(), items), function(ones(), iter(range(4))))
        assert list(items) == []


def test_a_generator_function_runs_as_before() -> None:
    def function(x: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x + 1
        yield x * 2

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        assert_same(list(compiled(ones())), list(function(ones())))


def test_random_numbers_are_drawn_as_before() -> None:
    import random

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + random.random()

    compiled = torch.compile(function, backend="eager")
    for seed in range(4):
        random.seed(seed)
        got = compiled(ones()), random.random()
        random.seed(seed)
        assert_same(got, (function(ones()), random.random()))


# -- exceptions --------------------------------------------------------------------------------------------------------


def names_of(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


class Broken(Exception):
    pass


def raising_backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        if bool((args[0] == 0).any()):
            raise Broken("a zero")
        return graph.forward(*args)

    return run


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def raised_by(call: Callable[..., Any]) -> Broken:
    with pytest.raises(Broken, match="a zero") as raised:
        call(torch.zeros(3), ones())
    return raised.value


def test_an_exception_of_the_graph_is_raised() -> None:
    compiled = torch.compile(add, backend=raising_backend)
    for _ in range(2):
        compiled(ones(), ones())
    with short(compiled):
        assert "compile_wrapper" in names_of(raised_by(compiled))
    with short(compiled):
        assert_same(compiled(ones(), ones()), ones() * 2)


def test_a_traceback_has_the_same_names() -> None:
    compiled = torch.compile(add, backend=raising_backend)
    with unified_guards.config.patch(dispatch=False):
        plain = torch.compile(add, backend=raising_backend)
    for _ in range(2):
        compiled(ones(), ones()), plain(ones(), ones())
    with short(compiled):
        got = names_of(raised_by(compiled))
    assert got == names_of(raised_by(plain))


def test_an_exception_names_the_line_at_which_the_wrapper_calls() -> None:
    compiled = torch.compile(add, backend=raising_backend)
    with unified_guards.config.patch(dispatch=False):
        plain = torch.compile(add, backend=raising_backend)
    for _ in range(2):
        compiled(ones(), ones()), plain(ones(), ones())
    lines = []
    for call in (compiled, plain):
        found = traceback.extract_tb(raised_by(call).__traceback__)
        lines += [(each.filename, each.lineno) for each in found if each.name == "compile_wrapper"]
    assert lines[0] == lines[1]


def test_an_exception_that_is_being_handled_stays_its_context() -> None:
    compiled = torch.compile(add, backend=raising_backend)
    for _ in range(2):
        compiled(ones(), ones())
    error = KeyError("first")
    try:
        raise error
    except KeyError:
        assert raised_by(compiled).__context__ is error


def test_an_error_of_an_operator_is_raised() -> None:
    def function(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return x[at]

    made = watched(function, ones(), torch.tensor([0, 1]))
    with short(made.compiled), pytest.raises(IndexError, match="out of bounds"):
        made.compiled(ones(), torch.tensor([0, 7]))


def test_an_exception_that_the_function_raises() -> None:
    def function(x: torch.Tensor, wanted: bool) -> torch.Tensor:
        y = x + 1
        if wanted:
            raise Broken("wanted")
        return y

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        with pytest.raises(Broken, match="wanted"):
            compiled(ones(), True)
        assert_same(compiled(ones(), False), ones() + 1)


def test_an_exception_that_the_function_catches() -> None:
    def function(x: torch.Tensor, table: dict[str, Any]) -> torch.Tensor:
        try:
            return x * table["factor"]
        except KeyError:
            return x

    made = Watched(function)
    for _ in range(3):
        made(ones(), {})
        made(ones(), {"factor": 2})


def test_a_keyboard_interrupt_of_the_graph_is_raised() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if bool((args[0] == 0).any()):
                raise KeyboardInterrupt
            return graph.forward(*args)

        return run

    compiled = torch.compile(add, backend=backend)
    for _ in range(3):
        compiled(ones(), ones())
        with pytest.raises(KeyboardInterrupt):
            compiled(torch.zeros(3), ones())


def test_a_backend_that_fails_raises_what_it_did() -> None:
    fails = False

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if fails:
            raise Broken("cannot compile")
        return graph.forward

    compiled = torch.compile(add, backend=backend, dynamic=False)
    for _ in range(2):
        compiled(ones(), ones())
    fails = True
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="cannot compile"):
        compiled(ones(2), ones(2))
    with short(compiled):
        assert_same(compiled(ones(), ones()), ones() * 2)


def test_reasons_add_up_to_the_calls() -> None:
    made = Watched(add)
    for at in range(8):
        made(ones(3 + at % 2), ones(3 + at % 2))
    assert shorts(made.compiled) + sum(longs(made.compiled).values()) == 8


scale = torch.full((3,), 10.0)


def _scaled_by_the_global(x: torch.Tensor) -> torch.Tensor:
    return x * scale


def test_a_global_with_the_name_of_a_parameter_is_not_the_parameter() -> None:
    def function(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return _scaled_by_the_global(x) + scale

    made = watched(function, ones(), ones())
    with short(made.compiled):
        assert_same(made(ones(), ones() * 2), ones() * 12)

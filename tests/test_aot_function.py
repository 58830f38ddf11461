"""``aot_function``: what calls depend on is guarded, what they give is what eager gives."""

from __future__ import annotations

import collections
import dataclasses
import gc
import logging
import weakref
from typing import Any, NamedTuple

import pytest
import torch
from functorch.compile import min_cut_rematerialization_partition, nop
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

import unified_guards

from .aot import Counting, Keywords, assert_like_eager, boxed, check


def ones(*sizes: int, **options: Any) -> torch.Tensor:
    return torch.ones(*sizes, **options)


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_a_second_call_like_the_first_is_a_hit() -> None:
    compiled = check(lambda x: x + 1, (ones(3),), compiles=1)
    info = compiled.cache_info()
    assert (info.hits, info.misses, info.entries) == (2, 1, 1)


CHANGES = {
    "size": ((ones(3),), (ones(4),)),
    "rank": ((ones(3),), (ones(3, 1),)),
    "stride": ((ones(3, 4),), (ones(4, 3).t(),)),
    "dtype": ((ones(3),), (ones(3, dtype=torch.float64),)),
    "requires_grad": ((ones(3),), (ones(3, requires_grad=True),)),
    "parameter": ((ones(3, requires_grad=True),), (torch.nn.Parameter(ones(3)),)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_metadata_gets_a_version_of_its_own(change: str) -> None:
    check(lambda x: x * 2, *CHANGES[change], compiles=2)


CONSTANTS = {
    "int": (2, 3),
    "bool": (True, False),
    "int and bool": (1, True),
    "float": (0.5, 1.5),
    "signed zero": (0.0, -0.0),
    "None": (None, 2),
    "str": ("sum", "mean"),
    "bytes": (b"a", b"b"),
    "complex": (1j, 2j),
    "dtype": (torch.float32, torch.float64),
    "device": (torch.device("cpu"), torch.device("meta")),
    "slice": (slice(0, 2), slice(1, 3)),
    "range": (range(2), range(3)),
    "Ellipsis": (..., None),
    "frozenset": (frozenset({1}), frozenset({2})),
    "function": (torch.sin, torch.cos),
    "type": (int, float),
    "enum": (unified_guards.guards.ir.Access.ATTR, unified_guards.guards.ir.Access.TYPE),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_an_argument_that_is_no_tensor_is_a_constant_of_the_version(kind: str) -> None:
    one, other = CONSTANTS[kind]
    compiled = unified_guards.aot_function(lambda x, value: (x + 1, value), nop)
    for value in (one, other, one, other):
        result, given = compiled(ones(3), value)
        assert type(given) is type(value)
        assert given is value or repr(given) == repr(value)
        torch.testing.assert_close(result, ones(3) + 1)
    assert compiled.cache_info().entries == 2
    assert compiled.cache_info().eager == {}


def test_a_dtype_device_or_slice_can_be_used() -> None:
    check(
        lambda x, dtype, part: x.to(dtype)[part] * 2,
        (ones(4), torch.float64, slice(0, 2)),
        (ones(4), torch.float32, slice(0, 2)),
        (ones(4), torch.float32, slice(1, 4)),
        compiles=3,
    )


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Box:
    content: Any
    label: str


pytree.register_dataclass(Box)


class Pair:
    def __init__(self, a: Any, b: Any) -> None:
        self.a = a
        self.b = b


pytree.register_pytree_node(Pair, lambda p: ([p.a, p.b], None), lambda children, _: Pair(*children))

TREES = {
    "tuple": (ones(2), (ones(3), 2)),
    "list": [ones(2), [ones(3)]],
    "dict": {"a": ones(2), "b": {"c": ones(3)}},
    "OrderedDict": collections.OrderedDict(a=ones(2), b=ones(3)),
    "defaultdict": collections.defaultdict(list, {"a": ones(2)}),
    "deque": collections.deque([ones(2), ones(3)]),
    "namedtuple": Point(ones(2), ones(3)),
    "registered dataclass": Box(ones(2), "label"),
    "int keys": {0: ones(2), 1: ones(3)},
    "torch.Size": (ones(6), torch.Size([2, 3])),
    "empty": {"a": [], "b": (), "c": ones(2)},
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_comes_in_and_goes_out_with_its_structure(kind: str) -> None:
    def function(tree: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, lambda x: x * 2, tree)

    check(function, (TREES[kind],), compiles=1)


def test_a_registered_class_of_the_user_comes_in_and_goes_out() -> None:
    compiled = unified_guards.aot_function(lambda pair: Pair(pair.a + pair.b, pair.a), nop)
    for _ in range(2):
        result = compiled(Pair(ones(2), ones(2)))
        assert type(result) is Pair
        torch.testing.assert_close((result.a, result.b), (ones(2) * 2, ones(2)))
    assert compiled.cache_info().hits == 2


STRUCTURES = [
    ([ones(2), ones(2)],),
    ((ones(2), ones(2)),),
    ([ones(2)],),
    ([ones(2), ones(2), ones(2)],),
    ({"a": ones(2), "b": ones(2)},),
    ({"b": ones(2), "a": ones(2)},),
    ({"a": ones(2), "c": ones(2)},),
    (collections.OrderedDict(a=ones(2), b=ones(2)),),
]


def test_another_structure_is_another_version() -> None:
    def function(tree: Any) -> Any:
        leaves = list(tree.values()) if isinstance(tree, dict) else list(tree)
        return type(tree).__name__, leaves[0] * 2, [leaf + at for at, leaf in enumerate(leaves)]

    check(function, *STRUCTURES, compiles=len(STRUCTURES))


def test_keyword_arguments_are_told_by_name_and_order() -> None:
    def function(x: torch.Tensor, **scales: Any) -> Any:
        return [x * value for value in scales.values()], list(scales)

    check(
        function,
        (ones(2), Keywords(a=ones(2), b=ones(2) * 2)),
        (ones(2), Keywords(b=ones(2) * 2, a=ones(2))),
        (ones(2), Keywords(a=ones(2))),
        (ones(2),),
        compiles=4,
    )


def test_no_tensor_at_all() -> None:
    check(lambda n: torch.arange(n) * 2, (3,), (4,), compiles=2)


def test_no_argument_at_all() -> None:
    check(lambda: torch.zeros(3) + 1, (), compiles=1)


def test_a_result_without_tensors() -> None:
    check(lambda x: (x.shape[0], "text", None, 1.5), (ones(3),), (ones(4),), compiles=2)


def test_a_flat_tuple_stays_a_tuple_and_a_single_tensor_a_tensor() -> None:
    compiled = check(lambda x: (x + 1, x + 2), (ones(3),), compiles=1)
    assert type(compiled(ones(3))) is tuple
    assert isinstance(check(lambda x: x + 1, (ones(3),))(ones(3)), torch.Tensor)


# -- aliasing and mutation ---------------------------------------------------------------------------------------------


def test_the_same_tensor_twice_is_not_two_tensors() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> Any:
        a.add_(1)
        return a + b, a is b

    one = torch.zeros(3)
    check(function, (torch.zeros(3), torch.zeros(3)), (one, one), compiles=2)


def test_views_of_one_memory_that_is_written_to() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> Any:
        a.mul_(2)
        return a + b

    base = torch.arange(8.0)
    compiled = unified_guards.aot_function(function, nop)
    for one, other in ((slice(0, 4), slice(4, 8)), (slice(0, 4), slice(2, 6)), (slice(0, 4), slice(0, 4))):
        for _ in range(2):
            mine, theirs = base.clone(), base.clone()
            torch.testing.assert_close(compiled(mine[one], mine[other]), function(theirs[one], theirs[other]))
            torch.testing.assert_close(mine, theirs)
    separate = torch.arange(4.0), torch.arange(4.0)
    torch.testing.assert_close(compiled(*separate), function(torch.arange(4.0), torch.arange(4.0)))
    assert compiled.cache_info().entries == 4


def test_a_write_that_eager_refuses_is_refused() -> None:
    compiled = unified_guards.aot_function(lambda x: x.add_(1) * 2, nop)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            compiled(ones(2, requires_grad=True))
    with torch.no_grad():
        torch.testing.assert_close(compiled(ones(2, requires_grad=True)).detach(), ones(2) * 4)


def test_memory_that_is_only_read_may_be_shared() -> None:
    base = torch.arange(8.0)
    compiled = unified_guards.aot_function(lambda a, b: a + b, nop)
    compiled(base[:4].clone(), base[:4].clone())
    torch.testing.assert_close(compiled(base[:4], base[2:6]), base[:4] + base[2:6])
    assert compiled.cache_info().entries == 1


@pytest.mark.parametrize("keep", [False, True])
def test_inputs_are_written_to(keep: bool) -> None:
    def function(x: torch.Tensor, buffer: torch.Tensor) -> Any:
        buffer.mul_(2).add_(x)
        buffer.t_()
        return buffer * x.sum()

    check(function, (ones(3, 3), torch.arange(9.0).reshape(3, 3)), keep_inference_input_mutations=keep)


def test_outputs_that_are_inputs_or_views_of_them() -> None:
    x = torch.arange(6.0)
    compiled = unified_guards.aot_function(lambda x: (x, x[1:], x.view(2, 3), x + 1), nop)
    for _ in range(2):
        same, tail, shaped, new = compiled(x)
        assert same is x
        assert tail.untyped_storage()._cdata == x.untyped_storage()._cdata == shaped.untyped_storage()._cdata
        assert new.untyped_storage()._cdata != x.untyped_storage()._cdata
        assert tail._is_view()


def test_an_offset_that_is_read_is_guarded_and_only_then() -> None:
    base = torch.arange(8.0)
    plain = unified_guards.aot_function(lambda x: x * 2, nop)
    reading = unified_guards.aot_function(lambda x: x * x.storage_offset(), nop)
    for start in (0, 1, 2):
        torch.testing.assert_close(plain(base[start : start + 4]), base[start : start + 4] * 2)
        torch.testing.assert_close(reading(base[start : start + 4]), base[start : start + 4] * start)
    assert plain.cache_info().entries == 1
    assert reading.cache_info().entries == 3


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_of_many_inputs() -> None:
    check(
        lambda x, ws: (x @ ws["a"]).relu() @ ws["b"],
        (ones(2, 3), {"a": torch.randn(3, 4, requires_grad=True), "b": torch.randn(4, 2, requires_grad=True)}),
        compiles=1,
        partition_fn=min_cut_rematerialization_partition,
    )


def test_grad_mode_is_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2, nop)
    x = ones(3, requires_grad=True)
    for _ in range(2):
        assert compiled(x).requires_grad
        with torch.no_grad():
            assert not compiled(x).requires_grad
    assert compiled.cache_info().entries == 2


def test_a_branch_on_grad_mode() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if torch.is_grad_enabled() else x * 3, nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 2)
        with torch.no_grad():
            torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)


def test_autocast_is_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda a, b: a @ b, nop)
    a, b = ones(2, 2), ones(2, 2)
    for _ in range(2):
        assert compiled(a, b).dtype is torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert compiled(a, b).dtype is torch.bfloat16


def test_the_default_device_and_dtype_are_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda x: x + torch.ones(2), nop)
    before = torch.get_default_dtype()
    try:
        assert compiled(ones(2, dtype=torch.float32)).dtype is torch.float32
        torch.set_default_dtype(torch.float64)
        assert compiled(ones(2, dtype=torch.float32)).dtype is torch.float64
    finally:
        torch.set_default_dtype(before)


def test_a_backward_compiler_gets_the_backward_graph() -> None:
    forward, backward, inference = Counting(), Counting(), Counting()
    compiled = unified_guards.aot_function(lambda x: x.sin().cos(), forward, backward, inference_compiler=inference)
    compiled(ones(3, requires_grad=True)).sum().backward()
    compiled(ones(3))
    assert [len(each.graphs) for each in (forward, backward, inference)] == [1, 1, 1]


def test_double_backward_is_what_torch_has() -> None:
    x = ones(3, requires_grad=True)
    compiled = unified_guards.aot_function(lambda x: x**3, nop)
    (first,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        first.sum().backward()


# -- dynamic -----------------------------------------------------------------------------------------------------------


def branch(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 4 else x * 3


def test_dynamic_compiles_once_for_each_branch() -> None:
    check(branch, *((ones(size),) for size in (3, 8, 4, 5, 100, 2)), compiles=2, dynamic=True)


def test_by_default_every_size_is_a_version() -> None:
    check(branch, (ones(3),), (ones(8),), (ones(9),), compiles=3)


def test_dynamic_none_is_static_first_and_then_only_what_changed() -> None:
    compiled = check(lambda x: x * 2, *((ones(size, 7),) for size in (3, 8, 4, 5)), compiles=2, dynamic=None)
    text = str(compiled.explain())
    assert "float32[*, 7]" in text
    assert "float32[3, 7]" in text


def test_an_integer_is_symbolic_when_dynamic() -> None:
    check(lambda x, n: x * n if n > 3 else x + n, *((ones(2), n) for n in (5, 6, 7, 2, 3)), compiles=2, dynamic=True)


def test_zero_and_one_stay_special() -> None:
    check(lambda x, n: x.sum() * n, *((ones(size), n) for size in (0, 1, 2, 3) for n in (0, 1, 2)), dynamic=True)


def test_an_integer_that_is_too_large_is_not_taken_for_one_that_fits() -> None:
    compiled = unified_guards.aot_function(lambda x, n: (x, n % 7), nop, dynamic=True)
    for n in (5, 2**62, 2**70, -(2**70)):
        assert compiled(ones(2), n)[1] == n % 7


def test_equal_sizes_may_part() -> None:
    compiled = check(
        lambda a, b: (a * 2, b * 3),
        (ones(4), ones(4)),
        (ones(5), ones(5)),
        (ones(4), ones(5)),
        compiles=2,
        dynamic=True,
    )
    assert any("size()[0] ==" in str(reason) for reason in compiled.recompiles())


def test_an_integer_whose_type_is_asked_for_is_not_symbolic() -> None:
    check(lambda x, n: x * 2 if isinstance(n, int) else x * 3, *((ones(2), n) for n in (5, 6, 0.5)), dynamic=True)


def test_a_view_of_a_strided_input_that_was_written_to() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x.reshape(-1, 1)

    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for step in (2, 3, 2):
        mine, theirs = torch.arange(12.0), torch.arange(12.0)
        torch.testing.assert_close(compiled(mine[::step]), function(theirs[::step]))
        torch.testing.assert_close(mine, theirs)


def test_a_size_that_tracing_made_constant_is_guarded() -> None:
    check(lambda x: [x * at for at in range(x.shape[0])], *((ones(n),) for n in (3, 4, 3)), compiles=2, dynamic=True)


def test_symbolic_strides() -> None:
    x = torch.arange(60.0).reshape(6, 10)
    check(lambda x: x * 2 if x.stride(0) > 8 else x * 3, (x,), (x[:, :7],), (x[:, :7].contiguous(),), dynamic=True)


def test_symbolic_sizes_in_the_result() -> None:
    check(lambda x: (x.shape[0] * 2, x + 1), (ones(3),), (ones(5),), (ones(6),), compiles=1, dynamic=True)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_no_conversion_is_done_twice_and_none_on_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    original = FakeTensorMode.from_tensor

    def counting(self: Any, tensor: Any, **options: Any) -> Any:
        converted.append(id(tensor))
        return original(self, tensor, **options)

    monkeypatch.setattr(FakeTensorMode, "from_tensor", counting)
    weight = ones(3)
    args = (ones(3), [ones(3), ones(3, requires_grad=True)])
    compiled = unified_guards.aot_function(lambda x, ys: x + ys[0] * ys[1] + weight, nop)
    compiled(*args)
    assert sorted(converted) == sorted(map(id, (args[0], *args[1], weight)))
    assert compiled.cache_info().fake_conversions == 4
    compiled(*args)
    assert len(converted) == 4
    compiled(ones(4)[:3], args[1])
    assert compiled.cache_info().fake_conversions == len(converted)


def test_compiling_happens_at_lowering_time_not_at_the_first_run() -> None:
    events: list[str] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        events.append("compile")
        assert all(isinstance(x, FakeTensor) for x in inputs)
        run = boxed(graph, inputs)

        def wrapped(args: list[Any]) -> Any:
            events.append("run")
            return run(args)

        wrapped._boxed_call = True  # type: ignore[attr-defined]
        return wrapped

    compiled = unified_guards.aot_function(lambda x: x + 1, compiler)
    compiled.compile(ones(3))
    assert events == ["compile"]
    compiled(ones(3))
    assert events == ["compile", "run"]


def test_keyword_arguments_are_passed_on_to_every_compiler() -> None:
    seen: list[Any] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        seen.append(options)
        return boxed(graph, inputs)

    compiled = unified_guards.aot_function(lambda x: x.sin(), compiler, compiler, level=3)
    compiled(ones(3, requires_grad=True)).sum().backward()
    assert seen == [{"level": 3}, {"level": 3}]


def test_the_least_recently_used_version_leaves_first() -> None:
    compiled = unified_guards.aot_function(branch, nop, max_entries=2, recompile_limit=100)
    for size in (2, 3, 2, 4):
        compiled(ones(size))
    before = compiled.cache_info()
    assert (before.entries, before.recompiles) == (2, 2)
    compiled(ones(2))
    assert compiled.cache_info().recompiles == before.recompiles
    compiled(ones(3))
    assert compiled.cache_info().recompiles == before.recompiles + 1


def test_at_the_limit_calls_run_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    compiled = unified_guards.aot_function(branch, nop, recompile_limit=2)
    with caplog.at_level(logging.WARNING):
        for size in (2, 3, 8, 9, 2):
            torch.testing.assert_close(compiled(ones(size)), branch(ones(size)))
    assert compiled.cache_info().eager == {"recompile_limit (2) reached": 2}
    assert len([record for record in caplog.records if "recompile_limit" in record.getMessage()]) == 1


def test_at_the_limit_an_error_when_asked_for() -> None:
    compiled = unified_guards.aot_function(branch, nop, recompile_limit=1, on_recompile_limit="error")
    compiled(ones(2))
    with pytest.raises(unified_guards.RecompileLimitError, match=r"dynamic=True(.|\n)*") as caught:
        compiled(ones(3))
    assert "L['args'][0]" in str(caught.value)
    compiled(ones(2))


def test_cache_clear_forgets() -> None:
    compiled = unified_guards.aot_function(branch, nop)
    compiled(ones(2))
    compiled.cache_clear()
    assert compiled.cache_info()[:3] == (0, 0, 0)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_the_reason_of_a_recompile_names_the_guard_and_who_made_it() -> None:
    compiled = unified_guards.aot_function(branch, nop, dynamic=True)
    compiled(ones(3))
    compiled(ones(8))
    (reason,) = compiled.recompiles()
    assert "L['args'][0].size()[0] <= 4" in str(reason)
    assert "aot, " in str(reason)
    assert "test_aot_function.py" in str(reason)


def test_recompiles_are_logged_as_torch_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    torch._logging.set_logs(recompiles=True)
    try:
        compiled = unified_guards.aot_function(branch, nop)
        with caplog.at_level(logging.DEBUG):
            compiled(ones(3))
            compiled(ones(8))
    finally:
        torch._logging.set_logs()
    (said,) = [record.getMessage() for record in caplog.records if "Recompiling" in record.getMessage()]
    assert "triggered by the following guard failure(s)" in said
    assert "float32[3]" in said


def test_explain_shows_every_version() -> None:
    compiled = unified_guards.aot_function(branch, nop, dynamic=True)
    compiled(ones(3))
    compiled(ones(8))
    report = compiled.explain()
    assert len(report.frames) == 2
    assert [frame.python_callbacks for frame in report.frames] == [0, 0]  # shape expressions are native
    assert "recompile 1:" in report.summary()
    assert str(unified_guards.explain(compiled)) == str(report)


def test_stats_count_versions_and_eager_calls() -> None:
    before = unified_guards.stats()
    compiled = unified_guards.aot_function(lambda x, it: x + next(it), nop)
    compiled(ones(2), iter([1]))
    unified_guards.aot_function(branch, nop)(ones(2))
    after = unified_guards.stats()
    assert after.aot_entries == before.aot_entries + 1
    assert sum(after.aot_run_eagerly.values()) == sum(before.aot_run_eagerly.values()) + 1
    assert "run eagerly" in str(after)


# -- what cannot be compiled -------------------------------------------------------------------------------------------


def test_what_cannot_be_guarded_runs_eagerly_and_is_counted() -> None:
    compiled = unified_guards.aot_function(lambda x, it: x + next(it), nop)
    it = iter([1, 2, 3])
    assert [int(compiled(torch.zeros(1), it)) for _ in range(3)] == [1, 2, 3]
    assert sum(compiled.cache_info().eager.values()) == 3


def test_a_numpy_argument_runs_eagerly() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(3, dtype=numpy.float32)
    compiled = unified_guards.aot_function(lambda x, a: x + torch.from_numpy(a), nop)
    torch.testing.assert_close(compiled(ones(3), array), ones(3) * 2)
    array += 1
    torch.testing.assert_close(compiled(ones(3), array), ones(3) * 3)


def test_a_container_argument_that_is_written_to_is_written_to() -> None:
    def function(x: torch.Tensor, results: list[Any]) -> torch.Tensor:
        results.append(x * 2)
        return x + 1

    compiled = unified_guards.aot_function(function, nop)
    results: list[Any] = []
    compiled(ones(2), results)
    torch.testing.assert_close(results, [ones(2) * 2])
    assert "container" in next(iter(compiled.cache_info().eager))


def test_an_object_of_a_class_that_is_not_registered_comes_out_eagerly() -> None:
    class Holder:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

    compiled = unified_guards.aot_function(lambda x: Holder(x + 1), nop)
    torch.testing.assert_close(compiled(ones(2)).value, ones(2) * 2)
    assert "Holder" in next(iter(compiled.cache_info().eager))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_branch_on_data_runs_eagerly_and_names_its_line(dynamic: bool) -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x.sum() > 0 else x * 3, nop, dynamic=dynamic)
    for value in (1.0, -1.0):
        torch.testing.assert_close(
            compiled(torch.tensor([value, value])), torch.tensor([value, value]) * (2.5 - value / 2)
        )
        compiled(torch.tensor([value, value]))
    ((reason, times),) = compiled.cache_info().eager.items()
    assert times == 4
    assert compiled.cache_info().misses == 1  # and so not traced again
    assert "values of tensors" in reason
    assert "test_aot_function.py" in reason


def test_an_error_of_the_function_is_the_users() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("mine")

    compiled = unified_guards.aot_function(function, nop)
    with pytest.raises(KeyError, match="mine"):
        compiled(ones(2))


def test_an_error_of_a_compiler_is_the_users() -> None:
    def compiler(graph: Any, inputs: Any) -> Any:
        raise LookupError("no such backend")

    with pytest.raises(LookupError, match="no such backend"):
        unified_guards.aot_function(lambda x: x + 1, compiler)(ones(2))


def test_wrong_words_get_a_message_that_helps() -> None:
    with pytest.raises(TypeError, match="fw_compiler must be a function of a graph module"):
        unified_guards.aot_function(branch, "inductor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'eager' or 'error'"):
        unified_guards.aot_function(branch, nop, on_recompile_limit="evict")
    with pytest.raises(ValueError, match="positive int"):
        unified_guards.aot_function(branch, nop, recompile_limit=0)


# -- other tracers and modes -------------------------------------------------------------------------------------------


def test_fake_tensors_are_traced_in_their_own_mode() -> None:
    modes: list[Any] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        modes.extend(x.fake_mode for x in inputs)
        return boxed(graph, inputs)

    compiled = unified_guards.aot_function(lambda x: x + 1, compiler)
    mode = FakeTensorMode()
    x = mode.from_tensor(ones(3))
    result = compiled(x)
    assert isinstance(result, FakeTensor)
    assert modes == [mode]
    compiled(x)
    assert compiled.cache_info().entries == 1
    compiled(FakeTensorMode().from_tensor(ones(3)))
    assert compiled.cache_info().entries == 2


def test_a_real_tensor_under_a_fake_mode_is_refused_with_a_way_out() -> None:
    compiled = unified_guards.aot_function(lambda x: x + 1, nop)
    x = ones(3)
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"fake_mode\.from_tensor"):
        compiled(x)


def test_inside_another_trace_the_function_is_seen_through() -> None:
    inner = unified_guards.aot_function(lambda x: x * 2, nop)
    counting = Counting()
    outer = unified_guards.aot_function(lambda x: inner(x) + 1, counting)
    torch.testing.assert_close(outer(ones(2)), ones(2) * 3)
    assert "mul" in counting.graphs[0].code
    assert inner.cache_info().entries == 0


def test_under_vmap_and_grad_the_function_is_seen_through() -> None:
    compiled = unified_guards.aot_function(lambda x: (x * 2).sum(), nop)
    torch.testing.assert_close(torch.func.vmap(compiled)(ones(3, 2)), torch.full((3,), 4.0))
    torch.testing.assert_close(torch.func.grad(compiled)(ones(2)), torch.full((2,), 2.0))


def test_inside_torch_compile() -> None:
    inner = unified_guards.aot_function(lambda x: x * 2, nop)
    outer = torch.compile(lambda x: inner(x) + 1, backend="eager")
    torch.testing.assert_close(outer(ones(2)), ones(2) * 3)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_an_object_known_by_address_takes_its_version_with_it() -> None:
    class Setting:
        pass

    setting = Setting()
    compiled = unified_guards.aot_function(lambda x, _: x + 1, nop)
    compiled(ones(2), setting)
    assert compiled.cache_info().entries == 1
    del setting
    gc.collect()
    assert compiled.cache_info().entries == 0


def test_arguments_are_not_kept() -> None:
    compiled = unified_guards.aot_function(lambda xs: xs[0] + 1, nop)
    x = ones(2)
    watch = weakref.ref(x)
    compiled([x])
    del x
    gc.collect()
    assert watch() is None


def test_a_model_that_holds_its_own_compiled_function_can_be_collected() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(ones(2))
            self.fast = unified_guards.aot_function(self.slow, nop)

        def slow(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    model = Model()
    model.fast(ones(2))
    assert model.fast.cache_info().entries == 1
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None


# -- what an argument is beside what is in it --------------------------------------------------------------------------


def flagged(value: Any, flag: int) -> Any:
    value.flag = flag
    return value


def caught(x: torch.Tensor) -> Any:
    try:
        return x * x.flag  # type: ignore[attr-defined]
    except AttributeError:
        return x + 1


ATTRIBUTE_READERS = {
    "hasattr": lambda x: x * 2 if hasattr(x, "flag") else x + 5,
    "getattr": lambda x: x * getattr(x, "flag", 1),
    "caught": caught,
}


@pytest.mark.parametrize("make", [ones, lambda size: torch.nn.Parameter(ones(size))])
@pytest.mark.parametrize("reader", ATTRIBUTE_READERS)
def test_a_tensor_that_has_an_attribute_is_not_one_without(reader: str, make: Any) -> None:
    function = ATTRIBUTE_READERS[reader]
    arguments = [make(3), flagged(make(3), 5), flagged(make(3), 6)]
    for order in (arguments, arguments[::-1]):
        compiled = unified_guards.aot_function(function, nop)
        for x in (*order, *order):
            assert torch.equal(compiled(x), function(x))


def test_an_attribute_that_nobody_asks_for_does_not_matter() -> None:
    check(lambda x: x * 2, (ones(3),), (flagged(ones(3), 5),), compiles=1)


def test_asking_for_an_absent_attribute_costs_no_version() -> None:
    check(ATTRIBUTE_READERS["hasattr"], (ones(3),), (ones(3) * 2,), compiles=1)
    assert not hasattr(FakeTensor, "__getattr__")


class Row(tuple):  # type: ignore[type-arg]
    pass


class Cell(NamedTuple):
    x: torch.Tensor
    y: int


class NamedRow(Cell):
    pass


class Node:
    def __init__(self, x: torch.Tensor, other: int = 0) -> None:
        self.x = x
        self.other = other


pytree.register_pytree_node(Node, lambda node: ([node.x], None), lambda children, _: Node(children[0]))

CONTAINERS = {
    "tuple": lambda: Row((ones(3),)),
    "named tuple": lambda: NamedRow(ones(3), 2),
    "ordered dict": lambda: collections.OrderedDict(x=ones(3)),
    "node": lambda: Node(ones(3)),
}


def by_flag(value: Any) -> Any:
    x = value.x if isinstance(value, Node) else value["x"] if isinstance(value, dict) else value[0]
    return x * getattr(value, "flag", 1)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_that_has_an_attribute_is_not_one_without(kind: str) -> None:
    make = CONTAINERS[kind]
    calls = (lambda: make(), lambda: flagged(make(), 5), lambda: flagged(make(), 6))
    for order in (calls, calls[::-1]):
        compiled = unified_guards.aot_function(by_flag, nop)
        for call in order:
            assert_like_eager(by_flag, compiled, call())


def test_what_a_node_does_not_hand_out_is_not_lost() -> None:
    compiled = unified_guards.aot_function(lambda node: node.x + node.other, nop)
    for other in (0, 3, 4, 0):
        assert torch.equal(compiled(Node(ones(3), other)), ones(3) + other)


class Slotted:
    __slots__ = ("other", "x")

    def __init__(self, x: torch.Tensor, other: int = 0) -> None:
        self.x = x
        self.other = other


pytree.register_pytree_node(Slotted, lambda node: ([node.x], None), lambda children, _: Slotted(children[0]))


@pytest.mark.parametrize("kind", [Node, Slotted])
def test_data_that_a_node_does_not_hand_out_is_not_lost(kind: Any) -> None:
    def function(node: Any) -> Any:
        return node.x + (node.other if isinstance(node.other, int) else node.other["a"][0])

    compiled = unified_guards.aot_function(function, nop)
    for other in (0, 3, {"a": [5]}, {"a": [6]}, 0):
        assert torch.equal(compiled(kind(ones(3), other)), function(kind(ones(3), other)))


class Scaled(torch.Tensor):
    @staticmethod
    def __new__(cls, inner: torch.Tensor, scale: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: torch.Tensor, scale: Any) -> None:
        self.part = inner
        self.scale = scale

    def __repr__(self) -> str:  # torch's own reads the numbers, of which a traced one has none
        return "Scaled"

    def __tensor_flatten__(self) -> Any:
        return ["part"], (self.scale,)

    @staticmethod
    def __tensor_unflatten__(inner: Any, metadata: Any, size: Any, stride: Any) -> Any:
        return Scaled(inner["part"], *metadata)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(value: Any) -> Any:
            return value.part * value.scale if isinstance(value, Scaled) else value

        return function(*pytree.tree_map(unwrap, args), **pytree.tree_map(unwrap, kwargs or {}))


@pytest.mark.parametrize("scales", [(1, True), (1, 1.0), (0.0, -0.0), (2, 2.0)])
def test_what_a_wrapper_says_of_itself_is_compared_exactly(scales: tuple[Any, Any]) -> None:
    def function(x: Any) -> Any:
        return ones(3), repr(x.scale)

    compiled = unified_guards.aot_function(function, nop)
    for scale in (*scales, *scales):
        assert compiled(Scaled(ones(3), scale))[1] == repr(scale)
    assert compiled.cache_info().eager == {}


def test_an_attribute_of_a_wrapper() -> None:
    compiled = unified_guards.aot_function(lambda x: ones(3) * getattr(x, "flag", 1), nop)
    for flag in (None, 5, 6, None):
        x = Scaled(ones(3), 1)
        assert torch.equal(compiled(x if flag is None else flagged(x, flag)), ones(3) * (flag or 1))


@pytest.mark.parametrize("other_is_inside", [True, False])
def test_a_wrapper_that_shares_memory_is_not_one_that_does_not(other_is_inside: bool) -> None:
    def function(x: Any, y: Any) -> Any:
        y = y.part if other_is_inside else y
        y.mul_(2)
        return x.part + (1 if x.part is y else 0)

    def arguments(shared: bool) -> tuple[Any, Any]:
        part = ones(3)
        other = part if shared else ones(3)
        return Scaled(part, 1), Scaled(other, 1) if other_is_inside else other

    compiled = unified_guards.aot_function(function, nop)
    for shared in (False, True, False, True):
        assert torch.equal(compiled(*arguments(shared)), function(*arguments(shared)))


# -- the callable itself -----------------------------------------------------------------------------------------------


def test_the_callable_looks_like_the_function() -> None:
    compiled = unified_guards.aot_function(branch, nop)
    assert compiled.__name__ == "branch"
    assert compiled.__wrapped__ is branch


def test_num_params_buffers_keeps_the_first_arguments_static() -> None:
    compiled = unified_guards.aot_function(lambda w, x: w * x.sum(), nop, num_params_buffers=1, dynamic=True)
    assert_like_eager(lambda w, x: w * x.sum(), compiled, ones(3), ones(5))
    assert_like_eager(lambda w, x: w * x.sum(), compiled, ones(3), ones(6))
    assert compiled.cache_info().entries == 1
    assert "float32[3]" in str(compiled.explain())

"""What torch's own guards miss, and ``install(strict=True)`` does not: each case with the one and with the other."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unified_guards
from unified_guards.dynamo import frame as dynamo_frame
from unified_guards.dynamo import install
from unified_guards.dynamo.wrapper import frames_of
from unified_guards.guards import semantics
from unified_guards.guards.ir import GuardSet, Test
from unified_guards.statistics import tally

from .corpus import ENTRIES
from .harness import TORCH, assert_same, collect, guards_without_shortcuts, run_python
from .test_differential import Frame


@dataclasses.dataclass
class Case:
    """A function, and a change after which what was compiled of it is wrong.

    ``use`` calls a function with arguments that it makes anew and gives what is to be compared; ``named`` is in the
    text of the guard that notices.
    """

    function: Callable[..., Any]
    use: Callable[[Callable[..., Any]], Any]
    change: Callable[[], Any]
    named: str
    backend: str = "eager"
    stale: bool = True  # with this torch
    undo: Callable[[], Any] = lambda: None


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def ones() -> torch.Tensor:
    return torch.ones(2, 3)


def with_x(call: Callable[..., Any]) -> Any:
    return call(ones())


class Add(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def fresh(kind: type) -> type:
    """A copy of a class, to be changed without harm to other tests. Its functions are the original's."""
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, kind.__bases__, own)


def calling(module: nn.Module) -> Callable[..., Any]:
    return lambda x: module(x) * 2


# -- hooks -------------------------------------------------------------------------------------------------------------


@case
def forward_hook() -> Case:
    module = nn.Linear(3, 3)
    handles: list[Any] = []

    def change() -> None:
        handles.append(module.register_forward_hook(lambda module, args, output: output * 10))

    return Case(calling(module), with_x, change, "['_forward_hooks']) == 0")


@case
def forward_hook_in_a_model() -> Case:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Add()))

    def change() -> None:
        model[1][1].register_forward_hook(lambda module, args, output: output * 10)

    return Case(calling(model), with_x, change, "['_forward_hooks']) == 0")


@case
def forward_pre_hook() -> Case:
    module = nn.Linear(3, 3)

    def change() -> None:
        module.register_forward_pre_hook(lambda module, args: (args[0] * 10,))

    return Case(calling(module), with_x, change, "['_forward_pre_hooks']) == 0")


@case
def hook_of_all_modules() -> Case:
    handles: list[Any] = []

    def change() -> None:
        hook = nn.modules.module.register_module_forward_hook(lambda module, args, output: output * 10)
        handles.append(hook)

    function = calling(nn.Linear(3, 3))
    return Case(function, with_x, change, "['_global_forward_hooks']) == 0", undo=lambda: handles.pop().remove())


@case
def full_backward_hook() -> Case:
    module = nn.Linear(3, 3)

    def gradient(call: Callable[..., Any]) -> torch.Tensor:
        x = ones().requires_grad_()
        call(x).sum().backward()
        assert x.grad is not None
        return x.grad

    def change() -> None:
        module.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 10,))

    return Case(calling(module), gradient, change, "['_backward_hooks']) == 0")


# -- classes -----------------------------------------------------------------------------------------------------------


@case
def forward_of_a_class() -> Case:
    kind = fresh(Add)

    def change() -> None:
        kind.forward = lambda self, x: x + 5  # type: ignore[attr-defined]

    return Case(calling(kind()), with_x, change, "__dict__['forward'] is")


@case
def forward_of_a_class_that_has_inherited_it() -> Case:
    kind = type("Inherits", (Add,), {})

    def change() -> None:
        kind.forward = lambda self, x: x + 5  # type: ignore[attr-defined]

    return Case(calling(kind()), with_x, change, "('forward' in type(", stale=TORCH < (2, 15))


@case
def call_of_a_class() -> Case:
    kind = fresh(Add)

    def change() -> None:
        kind.__call__ = lambda self, x: x + 5  # type: ignore[method-assign]

    return Case(calling(kind()), with_x, change, "('__call__' in type(")


class Plain:
    def method(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @classmethod
    def of_class(cls, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@case
def method_of_a_class() -> Case:
    value = fresh(Plain)()

    def change() -> None:
        type(value).method = lambda self, x: x + 5

    return Case(lambda x: value.method(x), with_x, change, "__dict__['method'] is")


@case
def class_method() -> Case:
    value = fresh(Plain)()

    def change() -> None:
        type(value).of_class = classmethod(lambda cls, x: x + 5)

    return Case(lambda x: value.of_class(x), with_x, change, "__dict__['of_class'].__func__ is", stale=TORCH < (2, 15))


# -- dunders of functions ----------------------------------------------------------------------------------------------


def made_class() -> type:
    class Made:
        def method(self, x: torch.Tensor, k: int = 1, *, by: float = 1.0) -> torch.Tensor:
            return (x + k) * by

    return Made


@case
def code_of_a_method() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__code__ = (lambda self, x, k=1, *, by=1.0: x + 5).__code__  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__code__ is the code of")


@case
def code_of_forward() -> Case:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    def change() -> None:
        Layer.forward.__code__ = (lambda self, x: x + 5).__code__

    return Case(calling(Layer()), with_x, change, "__code__ is the code of")


@case
def defaults_of_a_method() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__defaults__ = (5,)  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__defaults__", stale=TORCH < (2, 13))


@case
def defaults_of_a_function() -> Case:
    def inner(x: torch.Tensor, k: int = 1) -> torch.Tensor:
        return x + k

    def change() -> None:
        inner.__defaults__ = (5,)

    return Case(lambda x: inner(x), with_x, change, "__defaults__", stale=TORCH < (2, 13))


@case
def defaults_by_keyword() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__kwdefaults__["by"] = 5.0  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__kwdefaults__", stale=False)


@case
def content_of_a_closure() -> Case:
    k = 1

    class Closing:
        def method(self, x: torch.Tensor) -> torch.Tensor:
            return x + k

    def change() -> None:
        nonlocal k
        k = 5

    value = Closing()
    return Case(lambda x: value.method(x), with_x, change, "__closure__[0].cell_contents", stale=False)


# -- values ------------------------------------------------------------------------------------------------------------


def changing(function: Callable[..., Any], before: Any, after: Any, named: str, stale: bool = True) -> Case:
    """A case whose second argument becomes another one."""
    given = [before]

    def change() -> None:
        given[0] = after

    return Case(function, lambda call: call(ones(), copy.copy(given[0])), change, named, stale=stale)


def counts_bools(x: torch.Tensor, items: Any) -> torch.Tensor:
    return x + sum(type(item) is bool for item in items)


def signs(x: torch.Tensor, items: Any) -> torch.Tensor:
    for item in items:
        x = x * math.copysign(2, item)
    return x


@case
def bool_and_int_in_a_set() -> Case:
    return changing(counts_bools, {True}, {1}, "is exactly {True}")


@case
def bool_and_int_in_a_frozenset() -> Case:
    return changing(counts_bools, frozenset({1, 2}), frozenset({True, 2}), "is exactly frozenset({1, 2})")


@case
def sign_of_a_zero_in_a_frozenset() -> Case:
    return changing(signs, frozenset({0.0}), frozenset({-0.0}), "is exactly frozenset({0.0})")


@case
def sign_of_a_zero() -> Case:
    return changing(lambda x, z: x * math.copysign(2, z), 0.0, -0.0, "== 0.0 bit by bit", stale=TORCH < (2, 15))


@case
def sign_of_a_zero_in_a_tuple() -> Case:
    return changing(signs, (1.0, -0.0), (1.0, 0.0), "== -0.0 bit by bit", stale=TORCH < (2, 15))


@case
def sign_of_a_nan() -> Case:
    function = lambda x, z: x * math.copysign(2, z)  # noqa: E731
    return changing(function, math.nan, -math.nan, "== nan bit by bit", stale=TORCH < (2, 15))


@case
def order_of_an_ordered_dict() -> Case:
    items = collections.OrderedDict(a=1, b=2)

    def folded(x: torch.Tensor, items: dict[str, int]) -> torch.Tensor:
        for value in items.values():
            x = x * 2 + value
        return x

    return Case(folded, lambda call: call(ones(), items), lambda: items.move_to_end("a"), ".keys()) == ('a', 'b')")


# -- memory ------------------------------------------------------------------------------------------------------------


def add_in_place(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a.add_(1)
    return a + b


def views(first: int, second: int, length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.arange(float(length))
    return base[first : first + 2], base[second : second + 2]


def written(
    before: Callable[[], Any], after: Callable[[], Any], named: str, function: Callable[..., Any] = add_in_place
) -> Case:
    given = [before]

    def change() -> None:
        given[0] = after

    return Case(function, lambda call: call(*given[0]()), change, named, backend="aot_eager")


def separate() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(2.0), torch.arange(2.0)


@case
def inputs_that_come_to_share_memory() -> Case:
    return written(separate, lambda: views(0, 1), "no two of (L['a'], L['b']) share memory")


@case
def inputs_that_come_to_be_apart() -> Case:
    return written(lambda: views(0, 1), separate, "L['a']._base is torch.Tensor float32[8]")


@case
def views_that_come_to_overlap() -> Case:
    return written(lambda: views(0, 4), lambda: views(0, 1), ".storage_offset() == 4")


@case
def storage_offset_of_overlapping_views() -> Case:
    return written(lambda: views(0, 1), lambda: views(2, 3), ".storage_offset() == 0")


@case
def storage_offset_of_a_view_of_another_input() -> Case:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return b * 2

    def given(at: int) -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(8.0)
        return base, base[at : at + 2]

    return written(lambda: given(2), lambda: given(4), ".storage_offset() == 2", function)


@case
def parameters_that_come_to_be_one() -> Case:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.a.add_(1)
            return self.a + self.b + x

    model = Model()

    def use(call: Callable[..., Any]) -> Any:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return call(torch.zeros(2)).detach()

    def change() -> None:
        model.b = model.a

    return Case(lambda x: model(x), use, change, "share memory", backend="aot_eager")


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    assert not unified_guards.is_installed()
    torch._dynamo.reset()


@pytest.fixture(params=CASES)
def each(request: pytest.FixtureRequest) -> Iterator[Case]:
    made = CASES[request.param]()
    changed = made.change
    done: list[None] = []

    def change() -> None:
        done.append(changed())

    made.change = change
    yield made
    if done:
        made.undo()


def compiled(made: Case) -> Callable[..., Any]:
    return torch.compile(made.function, backend=made.backend, dynamic=False)


def is_right(made: Case, call: Callable[..., Any]) -> bool:
    try:
        got = made.use(call)
    except (RuntimeError, AssertionError):  # torch tries to make views of memory that is not there
        return False
    return torch.equal(got, made.use(made.function))


def entries(made: Case) -> list[dynamo_frame.Frame]:
    """Of the function itself, not of what is left of it after a graph break."""
    return frames_of(made.function.__code__)


def settings(made: Case) -> contextlib.AbstractContextManager[Any]:
    """Torch's defaults for what it does not notice; where it does, without 2.11's shortcuts through dict tags."""
    return contextlib.nullcontext() if made.stale else guards_without_shortcuts()


def test_plain_torch_gives_a_stale_result(each: Case) -> None:
    """An honest demonstration: torch alone."""
    with settings(each):
        call = compiled(each)
        assert is_right(each, call)
        each.change()
        assert is_right(each, call) is not each.stale


@pytest.mark.parametrize("verify", ["", "1"], ids=["", "verified"])
def test_strict_guards_notice(each: Case, verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", verify)
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "1")
    with unified_guards.installed(strict=True):
        call = compiled(each)
        assert is_right(each, call) and is_right(each, call)
        assert len(entries(each)) == 1, "what has not changed is compiled again"
        each.change()
        assert is_right(each, call)
        newest, oldest = entries(each)
        (miss,) = oldest.misses
        why = miss.text
        assert each.named in why
        if each.stale:
            assert why.endswith("# strict")
        hits = newest.checker.counts[1]
        assert is_right(each, call) and is_right(each, call)
        assert len(entries(each)) == 2, "it is compiled again and again"
        assert entries(each)[0].checker.counts[1] == hits + 2


def test_torch_tells_the_reason(each: Case) -> None:
    """What ``TORCH_LOGS=recompiles`` prints, and ``error_on_recompile`` raises."""
    with unified_guards.installed(strict=True):
        call = compiled(each)
        assert is_right(each, call)
        each.change()
        with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(Exception) as caught:
            each.use(call)
    assert "triggered by the following guard failure(s)" in str(caught.value)
    assert "Unexpected recompilation" not in str(caught.value)
    assert not each.stale or "# strict" in str(caught.value)


def test_both_evaluators_agree(each: Case) -> None:
    """On what was compiled, before and after the change."""
    wrappers: list[Any] = []
    seen: list[dict[str, Any]] = []

    def note(wrapper: Any, scope: dict[str, Any], builder: Any) -> None:
        wrappers.append(wrapper)
        seen.append(dict(scope))

    torch._dynamo.guards.guard_manager_testing_hook_fn = note
    try:
        with unified_guards.installed(strict=True):
            call = compiled(each)
            each.use(call)
            each.change()
            each.use(call)
    finally:
        torch._dynamo.guards.guard_manager_testing_hook_fn = None
    assert len(wrappers) >= 2
    for wrapper in wrappers:
        for f_locals in seen:
            native = wrapper.frame.checker.check(f_locals)
            assert semantics.evaluate(wrapper.frame.guard_set, f_locals) is native
            assert semantics.evaluate(wrapper.frame.checked, f_locals) is native


def test_without_strict_the_decision_is_torchs(each: Case) -> None:
    with settings(each), unified_guards.installed():
        call = compiled(each)
        assert is_right(each, call)
        assert all("strict" not in entry.guard_set.counts_by_provenance() for entry in entries(each))
        each.change()
        assert is_right(each, call) is not each.stale


def extras(function: Callable[..., Any]) -> GuardSet:
    """The strict guards of the newest entry."""
    found = unified_guards.explain(function).frames[0].guard_set
    assert found is not None
    return GuardSet(entry for entry in found.entries() if entry[1].maker == "strict")


def test_a_hook_that_is_removed_makes_the_first_entry_fit_again() -> None:
    module = nn.Linear(3, 3)
    function = calling(module)
    with unified_guards.installed(strict=True):
        call = torch.compile(function, backend="eager")
        for _ in range(3):
            assert_same(call(ones()), function(ones()))
            handle = module.register_forward_hook(lambda module, args, output: output * 10)
            assert_same(call(ones()), function(ones()))
            handle.remove()
    assert len(unified_guards.explain(function).frames) <= 4  # torch guards the hooks that there are, by their code


def test_a_forward_that_is_put_back_makes_the_first_entry_fit_again() -> None:
    kind = fresh(Add)
    function, original = calling(kind()), kind.forward  # type: ignore[attr-defined]
    with unified_guards.installed(strict=True):
        call = torch.compile(function, backend="eager")
        for forward in (original, lambda self, x: x + 5, original):
            kind.forward = forward  # type: ignore[attr-defined]
            assert_same(call(ones()), function(ones()))
    assert len(unified_guards.explain(function).frames) == 2


def test_another_function_at_the_address_of_a_dead_one_is_another() -> None:
    """A method is compared with what a weak reference leads to: its address alone may come round again."""
    kind = fresh(Plain)
    value = kind()
    function = lambda x: value.method(x)  # noqa: E731

    def replace(k: int) -> None:
        scope: dict[str, Any] = {}
        exec(f"def method(self, x): return x + {k}", scope)
        kind.method = scope["method"]  # type: ignore[attr-defined]

    with unified_guards.installed(strict=True), torch._dynamo.config.patch(recompile_limit=40):
        call = torch.compile(function, backend="eager")
        for k in range(30):
            replace(k)
            assert_same(call(ones()), function(ones()))


def test_the_recompile_limit_ends_in_eager() -> None:
    kind = made_class()
    value = kind()
    function = lambda x: value.method(x)  # noqa: E731
    with unified_guards.installed(strict=True), torch._dynamo.config.patch(recompile_limit=3):
        call = torch.compile(function, backend="eager")
        for k in range(8):
            kind.method.__code__ = (  # type: ignore[attr-defined]
                (lambda self, x, k=1, *, by=1.0: x + 5) if k % 2 else (lambda self, x, k=1, *, by=1.0: x + 7)
            ).__code__
            assert_same(call(ones()), function(ones()))
        assert len(unified_guards.explain(function).frames) <= 3


def test_a_hook_on_the_compiled_module_itself_is_no_reason_to_compile_again() -> None:
    """Who calls its forward runs its hooks."""
    module = Add()
    with unified_guards.installed(strict=True):
        call = torch.compile(module, backend="eager")
        call(ones())
        module.register_forward_hook(lambda module, args, output: output * 10)
        assert_same(call(ones()), module(ones()))
        assert len(unified_guards.explain(module).frames) == 1


def test_containers_of_modules_need_no_guards_on_hooks() -> None:
    layers = nn.ModuleList([Add(), Add()])

    def function(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = layer(x)
        return x

    with unified_guards.installed(strict=True):
        torch.compile(function, backend="eager")(ones())
    own = [str(item) for item in extras(function) if "_forward_hooks" in str(item) and "_global" not in str(item)]
    assert len(own) == 2


def test_many_layers_of_one_class_ask_for_its_methods_once() -> None:
    function = calling(nn.Sequential(*(Add() for _ in range(10))))
    with unified_guards.installed(strict=True):
        torch.compile(function, backend="eager")(ones())
    assert len([item for item in extras(function) if item.test is Test.IS_TARGET and "Add.forward" in str(item)]) == 2


def test_an_eager_backend_writes_to_whatever_shares_memory() -> None:
    with unified_guards.installed(strict=True):
        call = torch.compile(add_in_place, backend="eager", dynamic=False)
        for given in (separate, lambda: views(0, 1), lambda: views(2, 4)):
            assert_same(call(*given()), add_in_place(*given()))
        assert len(unified_guards.explain(add_in_place).frames) == 1


def test_inputs_that_are_only_read_may_share_memory() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    with unified_guards.installed(strict=True):
        call = torch.compile(function, backend="aot_eager", dynamic=False)
        for given in (separate, lambda: views(0, 1), lambda: views(2, 4)):
            assert_same(call(*given()), function(*given()))
        assert len(unified_guards.explain(function).frames) == 1


def test_the_tensor_that_inputs_are_views_of_is_guarded() -> None:
    with unified_guards.installed(strict=True):
        call = torch.compile(add_in_place, backend="aot_eager", dynamic=False)
        for length in (8, 10, 8, 10):
            assert_same(call(*views(0, 1, length)), add_in_place(*views(0, 1, length)))
        frames = unified_guards.explain(add_in_place).frames
    assert len(frames) == 2
    assert "L['a']._base is torch.Tensor float32[8]" in frames[1].misses[0]


def test_torch_guards_where_inputs_of_symbolic_sizes_overlap() -> None:
    def given(start: int) -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(20.0)
        return base[:8], base[start : start + 8]

    with unified_guards.installed(strict=True):
        call = torch.compile(add_in_place, backend="aot_eager", dynamic=True)
        for start in (4, 5, 9, 10, 4):
            assert_same(call(*given(start)), add_in_place(*given(start)))
        assert len(unified_guards.explain(add_in_place).frames) == 2


def test_what_has_no_memory_of_its_own() -> None:
    """Is not among the inputs whose memory is guarded."""
    from unified_guards.dynamo import strict

    x = torch.ones(2, 2)
    assert strict._storage(x) == strict._storage(x[1:]) is not None
    assert strict._storage(torch.eye(2).to_sparse()) is strict._storage(None) is None


def test_a_result_from_a_cache_counts_as_if_every_input_were_written_to() -> None:
    """AOTAutograd does not say which are, then."""
    from unified_guards.dynamo import strict

    call = strict.Call(["L['a']", "L['b']"], cached=True)
    assert strict._mutated(None, call) == [True, True]
    assert strict._mutated(None, call._replace(cached=False)) is None
    assert strict._mutated(None, None) is None


def calling_method(value: Any) -> Callable[..., Any]:
    return lambda x: value.method(x)


def test_only_a_strict_guard_may_miss_where_torch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the oracle of ``UNIFIED_GUARDS_VERIFY=1`` asks."""
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "1")
    wrappers: list[Any] = []
    monkeypatch.setattr(torch._dynamo.guards, "guard_manager_testing_hook_fn", lambda w, *rest: wrappers.append(w))
    module = Add()

    def function(x: torch.Tensor, module: nn.Module) -> torch.Tensor:
        return module(x) * 2

    with unified_guards.installed(strict=True):
        torch.compile(function, backend="eager")(ones(), module)
    (wrapper,) = wrappers
    frame, check = wrapper.frame, wrapper.frame.checker.callable()
    assert not frame.stopped_at_an_extra()
    assert check({"x": ones(), "module": module})
    for f_locals in ({"x": ones().double(), "module": module}, {"x": ones(), "module": nn.ReLU()}, {"x": ones()}):
        assert not check(f_locals)
        assert not frame.stopped_at_an_extra()
    hooks = vars(module).pop("_backward_hooks")
    assert not check({"x": ones(), "module": module})
    assert frame.stopped_at_an_extra(), "that is missing which only a strict guard reads"
    vars(module)["_backward_hooks"] = hooks
    assert check({"x": ones(), "module": module})
    module.register_forward_hook(lambda module, args, output: None)
    assert not check({"x": ones(), "module": module})
    assert frame.stopped_at_an_extra()
    assert not unified_guards.stats().disagreements
    monkeypatch.setattr(type(frame), "stopped_at_an_extra", lambda self: False)
    with pytest.raises(SystemError) as caught:  # what only Dynamo's lookup can raise as it is
        bool(check({"x": ones(), "module": module}))
    assert isinstance(caught.value.__cause__, unified_guards.GuardDisagreement)
    assert "_forward_hooks" in tally.disagreements.pop()


def test_strict_lasts_until_uninstall() -> None:
    function = calling(nn.Linear(3, 3))
    try:
        unified_guards.install(strict=True)
        unified_guards.install()
        torch.compile(function, backend="eager")(ones())
        assert len(extras(function))
        torch._dynamo.reset()
        unified_guards.uninstall()
        unified_guards.install()
        torch.compile(function, backend="eager")(ones())
        assert not len(extras(function))
    finally:
        unified_guards.uninstall()


def test_strict_is_of_the_block() -> None:
    function = calling(nn.Linear(3, 3))
    with unified_guards.installed():
        with unified_guards.installed(strict=True):
            assert install._is_strict()
        torch.compile(function, backend="eager")(ones())
    assert not len(extras(function))


SCRIPT = """
import torch
import unified_guards
from torch import nn
module = nn.Linear(3, 3)
function = lambda x: module(x)
compiled = torch.compile(function, backend="eager")
compiled(torch.ones(2, 3))
module.register_forward_hook(lambda module, args, output: output * 10)
print(torch.equal(compiled(torch.ones(2, 3)), function(torch.ones(2, 3))))
assert unified_guards.is_installed()
"""


@pytest.mark.parametrize("strict", ["0", "1"])
def test_the_environment_variable(tmp_path: Path, strict: str) -> None:
    (tmp_path / "program.py").write_text("import unified_guards; unified_guards.install()\n" + SCRIPT)
    done = run_python(str(tmp_path / "program.py"), environ={"UNIFIED_GUARDS_STRICT": strict})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(strict == "1")


def test_a_strict_set_travels_as_json() -> None:
    function = calling(Add())
    with unified_guards.installed(strict=True):
        torch.compile(function, backend="eager")(ones())
    guard_set = extras(function)
    loaded = GuardSet.from_json(guard_set.to_json())
    assert [str(item) for item in loaded if item.test is not Test.OPAQUE] == [
        str(item) for item, copied in zip(guard_set, loaded, strict=True) if copied.test is not Test.OPAQUE
    ]
    assert loaded.counts_by_provenance() == {"strict": len(guard_set)}


def test_a_strict_set_pins_neither_classes_nor_functions() -> None:
    """A function that a checker held would hold the code whose cache entry holds the checker."""

    def is_collected(strict: bool) -> bool:
        kind = made_class()
        function = calling_method(kind())
        with unified_guards.installed(strict=strict):
            torch.compile(function, backend="eager")(ones())
        guard_set = unified_guards.explain(function).frames[0].guard_set
        target = weakref.ref(kind)
        del kind, function
        torch._dynamo.reset()
        collect()
        assert guard_set is not None
        return target() is None

    assert is_collected(strict=False)
    assert is_collected(strict=True)


@pytest.mark.parametrize("name", ENTRIES)
def test_everything_in_the_corpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strict guards hold as compiled, make no hit where torch misses, and mean the same to both evaluators."""
    monkeypatch.setenv("UNIFIED_GUARDS_STRICT", "1")
    for mutation in [None, *ENTRIES[name]().mutations]:
        example = ENTRIES[name]()
        try:
            frame = Frame(example)
            if mutation is not None:
                with contextlib.suppress(Exception):  # some are only there for others to be made first
                    example.mutations[mutation](frame.f_locals)
            verdicts = frame.verdicts()
            expected = verdicts.pop("torch")
            assert len(set(verdicts.values())) == 1, (mutation, verdicts)
            if verdicts["native"] is not expected:
                assert expected and frame.wrapper.frame.stopped_at_an_extra(), mutation
                assert mutation is not None, frame.wrapper.frame.last_failure
        finally:
            example.clean_up()
            torch._dynamo.reset()

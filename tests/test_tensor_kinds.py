"""What is read of a tensor, whatever its kind, is what torch's accessors say; a guard says what torch's tree says."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.guards as torch_guards
from functorch.compile import nop
from torch._C._dynamo import guards as native

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import lift as lifting
from unified_guards.dynamo import tap
from unified_guards.guards import semantics
from unified_guards.lower.rows import lower, make_checker

from . import tensor_kinds
from .modes import Hidden, Visible
from .tensor_kinds import ASKED, CHANGES, KINDS, made

PLAIN = torch_guards.GuardManagerType.GUARD_MANAGER
OURS = str(Path(unified_guards.__file__).parent)
COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
#: Torch can make no guard on a strided nested tensor: its sizes cannot be asked for.
GUARDED = [name for name in KINDS if name != "nested"]
#: Where we may miss and torch does not: it would add guards to a ShapeEnv to compare symbols; and of a subclass that
#: has more strides than sizes, or fewer, it reads as many as there should be.
STRICTER = {"fake_with_symbols", "wrapper_WithStrides"}


@pytest.fixture(autouse=True)
def _quietly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("UNIFIED_GUARDS_WITNESS", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -- what is read ------------------------------------------------------------------------------------------------------


def told_by_torch(tensor: torch.Tensor) -> dict[str, Any]:
    """By torch's own accessors, past what a Python subclass defines in front of them."""
    of = torch._C.TensorBase

    def ask(accessor: Callable[[], Any]) -> Any:
        try:
            return accessor()
        except (RuntimeError, NotImplementedError, TypeError) as error:
            return error

    with torch._C.DisableTorchFunctionSubclass():
        return {
            "keys": torch._C._dispatch_keys(tensor).raw_repr(),
            "dtype": _C.tensor_facts(torch.empty(0, dtype=of.dtype.__get__(tensor)), None)[1],
            "device": ask(lambda: str(of.device.__get__(tensor))),
            "size": ask(lambda: tuple(of.size(tensor))),
            "stride": ask(lambda: of.stride(tensor)),
            "storage_offset": ask(lambda: of.storage_offset(tensor)),
            "requires_grad": of.requires_grad.__get__(tensor),
        }


def read_rightly(tensor: torch.Tensor) -> None:
    told = told_by_torch(tensor)
    for field, value in _C.read_in_place(tensor).items():
        assert value is None or value == told[field], field


@pytest.mark.parametrize("name", KINDS)
def test_of_each_kind_the_fields_that_need_asking_are_known(name: str) -> None:
    with made(name) as (tensor, _):
        fields = _C.read_in_place(tensor)
        read_rightly(tensor)
    assert {field for field, value in fields.items() if value is None} == ASKED[name]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_in_place_is_what_torch_says_after_each_change(name: str) -> None:
    for change in CHANGES:
        with made(name) as (tensor, of):
            tensor_kinds.change(change, tensor, of)
            read_rightly(tensor)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_allowed_for_some_kind(change: str) -> None:
    refused = []
    for name in KINDS:
        with made(name) as (tensor, of):
            refused.append(tensor_kinds.change(change, tensor, of))
    assert None in refused


# -- what is said ------------------------------------------------------------------------------------------------------


class Holder:
    def __init__(self, w: object) -> None:
        self.w = w


def below(manager: Any, method: str, **given: Any) -> Any:
    """The child that an accessor makes. Without an example, torch takes no shortcuts through dict tags."""
    return getattr(manager, method)(**given, source=method, example_value=None, guard_manager_enum=PLAIN)


def argument(root: Any) -> list[Any]:
    return [below(root, "framelocals_manager", key=("x", 0))]


def attribute(root: Any) -> list[Any]:
    return [below(below(argument(root)[0], "get_generic_dict_manager"), "dict_getitem_manager", key="w")]


def items(root: Any) -> list[Any]:
    return [below(argument(root)[0], "list_getitem_manager", key=at) for at in (0, 1)]


#: Each with how the tensor is shown. In a list there is another before it that is like it and stays as it is.
PLACES: dict[str, tuple[Callable[[Any], list[Any]], Callable[[torch.Tensor, torch.Tensor], Any]]] = {
    "argument": (argument, lambda tensor, other: tensor),
    "attribute": (attribute, lambda tensor, other: Holder(tensor)),
    "list": (items, lambda tensor, other: [other, tensor]),
}


class Guarded:
    """Torch's tree about a tensor, and our checker of the same guards."""

    def __init__(self, place: str, tensor: torch.Tensor, other: torch.Tensor) -> None:
        managers_of, show = PLACES[place]
        self.shown = {"x": show(tensor, other)}
        keys = torch._C._dispatch_keys(tensor)
        sizes, strides = self.dims_of(tensor)
        with unified_guards.installed(), tap.recording() as records:
            self.root = native.RootGuardManager()
            for manager in managers_of(self.root):
                manager.add_tensor_match_guard(tensor, sizes, strides, "x", ["check"], None, type(tensor), keys)
            self.checker = make_checker(lower(lifting.lift(records, self.root).guard_set))

    @staticmethod
    def dims_of(tensor: torch.Tensor) -> tuple[list[Any], list[Any]]:
        """Sizes and strides where torch cannot take those of the tensor."""
        if tensor.layout in COMPRESSED:
            return list(tensor.size()), [None] * tensor.dim()
        symbolic = any(isinstance(size, torch.SymInt) for size in tensor.size())
        return ([None] * tensor.dim(), [None] * tensor.dim()) if symbolic else ([], [])

    def torchs_verdict(self) -> bool:
        try:
            return self.root.check(self.shown)
        except RuntimeError:
            return False  # a tensor without strides, say: torch lets that out, we miss

    def agrees(self, stricter: bool = False) -> bool:
        """Whether both say the same, the witness as often as it takes to remember."""
        torchs = self.torchs_verdict()
        ours = {self.checker.check(self.shown) for _ in range(4)} | {self.checker.exact(self.shown)}
        return ours == {torchs} or (stricter and ours == {False})


@contextlib.contextmanager
def guarded(place: str, name: str) -> Iterator[tuple[Guarded, torch.Tensor, torch.Tensor]]:
    with made(name) as (tensor, of), contextlib.ExitStack() as stack:
        other = tensor
        if name not in NOT_TWICE:
            other, _ = KINDS[name](stack)
        yield Guarded(place, tensor, other), tensor, of


#: Their makers change the thread's state so that a second tensor would be of another level.
NOT_TWICE = {"batched", "wrapped_for_a_gradient", "dual", "distributed", "functional_while_it_is_on"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GUARDED)
def test_a_guard_says_what_torchs_tree_says_before_and_after_a_change(name: str, place: str) -> None:
    for change in CHANGES:
        with guarded(place, name) as (both, tensor, of):
            assert both.agrees(name in STRICTER), change
            tensor_kinds.change(change, tensor, of)
            assert both.agrees(name in STRICTER), change


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GUARDED)
def test_a_guard_says_what_torchs_tree_says_through_many_changes(name: str, place: str) -> None:
    with guarded(place, name) as (both, tensor, of):
        for change in CHANGES:
            tensor_kinds.change(change, tensor, of)
            assert both.agrees(name in STRICTER), change


def test_code_that_replaces_the_implementation_it_is_asked_about_frees_nothing_that_is_read() -> None:
    class Replaces(tensor_kinds.WithDevice):
        armed = False

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if cls.armed and func is torch.ops.prim.device.default:
                cls.armed = False
                torch.utils.swap_tensors(holder.w, Replaces(torch.ones(7)))
            return super().__torch_dispatch__(func, types, args, kwargs)

    tensor = Replaces(torch.ones(2, 3))
    both = Guarded("attribute", tensor, tensor)
    holder = both.shown["x"]
    for check in (both.checker.exact, both.checker.check):
        Replaces.armed = True
        check(both.shown)
        assert not Replaces.armed
        assert both.agrees()


@pytest.mark.parametrize("stride", [1, -1])
def test_no_guarded_stride_matches_a_tensor_without_strides(stride: int) -> None:
    tensor = torch.eye(2).to_sparse_csr()
    with unified_guards.installed(), tap.recording() as records:
        root = native.RootGuardManager()
        keys = torch._C._dispatch_keys(tensor)
        argument(root)[0].add_tensor_match_guard(
            tensor, [2, 2], [stride, stride], "x", ["check"], None, type(tensor), keys
        )
        guards = lifting.lift(records, root).guard_set
    assert not make_checker(lower(guards)).check({"x": tensor})
    assert not semantics.evaluate(guards, {"x": tensor})


@pytest.mark.parametrize("strides", [(), (3,), (3, 1, 1), (3, 1, 1, 1, 1, 1)])
def test_a_subclass_with_too_many_or_too_few_strides_is_no_match(strides: tuple[int, ...]) -> None:
    tensor = tensor_kinds.WithStrides(torch.ones(2, 3))
    both = Guarded("attribute", tensor, tensor)
    assert both.agrees()
    tensor.inner = torch.empty_strided((1,) * len(strides), strides)
    for _ in range(3):
        assert not both.checker.check(both.shown)
    assert not both.checker.exact(both.shown)


@pytest.mark.parametrize("name", GUARDED)
def test_code_in_python_runs_only_where_it_is_said_to(name: str) -> None:
    called: list[str] = []

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and not frame.f_code.co_filename.startswith(OURS):
            called.append(frame.f_code.co_name)

    with guarded("attribute", name) as (both, tensor, _):
        asks, checker, shown = _C.asks_python(tensor), both.checker, both.shown
        sys.setprofile(note)
        try:
            checker.exact(shown)
            checker.check(shown)
        finally:
            sys.setprofile(None)
    assert asks or not called


def test_a_subclass_that_computes_its_sizes_is_said_to_run_code() -> None:
    asked = []

    class Tells(tensor_kinds.WithSizes):
        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            asked.append(func)
            return super().__torch_dispatch__(func, types, args, kwargs)

    tensor = Tells(torch.ones(2, 3))
    both = Guarded("attribute", tensor, tensor)
    asked.clear()
    assert both.checker.exact(both.shown)
    assert asked and _C.asks_python(tensor)


# -- views -------------------------------------------------------------------------------------------------------------


def test_a_view_that_came_to_need_a_gradient_is_remembered_as_such() -> None:
    of = torch.ones(4)
    view = of[1:]
    of.mul_(torch.ones(4, requires_grad=True))
    plain = torch.ones(3)
    told = []
    for tensor in (view, plain):
        both = Guarded("attribute", tensor, tensor)
        for _ in range(4):
            assert both.checker.check(both.shown)
        assert both.checker.witness is not None
        told.append((both.checker.witness["tensors"], both.checker.witness["live"], both.checker.witness["recorded"]))
    assert told[0] == told[1] and told[0][0] == 1


def test_a_view_whose_base_comes_to_need_a_gradient_is_compiled_anew() -> None:
    class Module(torch.nn.Module):
        def __init__(self, v: torch.Tensor) -> None:
            super().__init__()
            self.v = v

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (self.v * 2 if not self.v.requires_grad else self.v * 3).detach()

    of = torch.ones(4)
    module, x = Module(of[:2]), torch.zeros(2)
    with unified_guards.installed():
        compiled = torch.compile(module, backend="eager", dynamic=False)
        for _ in range(4):
            compiled(x)
        of.mul_(torch.ones(4, requires_grad=True))
        assert torch.equal(compiled(x), module(x))
        before = unified_guards.stats().misses
        for _ in range(4):
            compiled(x)
        assert unified_guards.stats().misses == before  # no recompile for ever


def test_an_aot_function_asks_the_base_of_a_view() -> None:
    def twice_or_thrice(v: torch.Tensor) -> torch.Tensor:
        return v * 3 if v.requires_grad else v * 2

    of = torch.ones(4)
    view = of[:2]
    fast = unified_guards.aot_function(twice_or_thrice, nop)
    for _ in range(3):
        fast(view)
    of.mul_(torch.ones(4, requires_grad=True))
    for _ in range(3):
        found = fast(view)
        assert torch.equal(found, twice_or_thrice(view))
        assert found.requires_grad
    assert fast.cache_info().misses == 2


def test_a_functional_wrapper_that_is_transposed_is_compiled_anew() -> None:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch._to_functional_tensor(torch.ones(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.w.shape[0]

    module, x = Module(), torch.zeros(1)
    with unified_guards.installed():
        compiled = torch.compile(module, backend="eager", dynamic=False)
        for _ in range(4):
            compiled(x)
        module.w.t_()
        assert torch.equal(compiled(x), module(x))


# -- modes -------------------------------------------------------------------------------------------------------------


def without_python_keys() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.Python))


MODES: dict[str, Callable[[], Any]] = {
    "none": contextlib.nullcontext,
    "hidden": Hidden,
    "visible": Visible,
    "excluded": without_python_keys,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["plain", "view", "parameter", "wrapper_Wrapper", "functional", "two_tensors"])
@pytest.mark.parametrize("made_in", MODES)
def test_what_is_remembered_in_one_mode_is_not_believed_in_another(made_in: str, name: str, place: str) -> None:
    with made(name) as (tensor, _):
        with MODES[made_in]():
            both = Guarded(place, tensor, tensor)
        for mode in [*MODES, *reversed(MODES), "hidden", "visible", "hidden"]:
            with MODES[mode]():
                assert both.agrees(), mode
        with Hidden(), Visible():
            assert both.agrees()
        with Visible(), Hidden():
            assert both.agrees()

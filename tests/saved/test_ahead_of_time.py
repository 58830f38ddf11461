"""Functions that were compiled ahead of time, saved and loaded: their guards are checked natively and decide alike."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._C._dynamo.guards import RootGuardManager
from torch._dynamo.aot_compile import AOTCompiledFunction, ModelInput

import unified_guards
from unified_guards.dynamo import compat, tap
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper

from ..harness import assert_same, guards_without_shortcuts, ones
from . import programs
from .saving import callbacks, compiled, decisions, loaded, loaded_again, manager_of, saved

Call = tuple[tuple[Any, ...], contextlib.AbstractContextManager[Any]]
_AS_IT_IS = contextlib.nullcontext()


@contextlib.contextmanager
def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _transposed() -> torch.Tensor:
    return ones(4, 8).t()


#: What differs from the call that was compiled: whether the code may be used, the arguments, and what is entered.
CALLS: dict[str, tuple[bool, Call]] = {
    "nothing": (True, ((ones(8, 4), ones(8, 4), 3), _AS_IT_IS)),
    "values": (True, ((ones(8, 4) * 5, ones(8, 4), 3), _AS_IT_IS)),
    "dtype": (False, ((ones(8, 4).double(), ones(8, 4), 3), _AS_IT_IS)),
    "size": (False, ((ones(9, 4), ones(9, 4), 3), _AS_IT_IS)),
    "strides": (False, ((_transposed(), ones(8, 4), 3), _AS_IT_IS)),
    "dimensions": (False, ((ones(8, 4, 1), ones(8, 4), 3), _AS_IT_IS)),
    "gradients": (False, ((ones(8, 4, requires_grad=True), ones(8, 4), 3), _AS_IT_IS)),
    "number": (False, ((ones(8, 4), ones(8, 4), 4), _AS_IT_IS)),
    "type of number": (False, ((ones(8, 4), ones(8, 4), 3.0), _AS_IT_IS)),
    "no tensor": (False, ((None, ones(8, 4), 3), _AS_IT_IS)),
    "one tensor twice": (False, ((one := ones(8, 4), one, 3), _AS_IT_IS)),
    "marked": (False, ((marked := ones(8, 4), ones(8, 4), 3), _AS_IT_IS)),
    "autocast": (False, ((ones(8, 4), ones(8, 4), 3), torch.autocast("cpu"))),
    "grad mode": (False, ((ones(8, 4), ones(8, 4), 3), torch.no_grad())),
    "inference mode": (False, ((ones(8, 4), ones(8, 4), 3), torch.inference_mode())),
    "default dtype": (False, ((ones(8, 4), ones(8, 4), 3), _default_dtype())),
    "default device": (False, ((ones(8, 4), ones(8, 4), 3), torch.device("meta"))),
}
torch._dynamo.mark_dynamic(marked, 0)


@pytest.mark.parametrize("change", CALLS)
def test_decides_as_torch_does(change: str) -> None:
    made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
    fits, (args, entered) = CALLS[change]
    with callbacks() as called:
        assert decisions(made, *args) == (True, True) if fits else True
        with entered:
            assert decisions(made, *args) == (fits, fits)
    assert called == [0]


STATES = {"plain": contextlib.nullcontext, "autocast": lambda: torch.autocast("cpu"), "inference": torch.inference_mode}


@pytest.mark.parametrize("loaded_in", STATES)
@pytest.mark.parametrize("saved_in", STATES)
def test_the_dispatch_state_that_guards_were_saved_in_counts_as_with_torch(saved_in: str, loaded_in: str) -> None:
    with torch.inference_mode():
        x = ones(8, 4)  # has no keys that say whether it is used in inference mode: only the state has
    with STATES[saved_in]():
        data = saved(compiled(programs.branching, x, x.clone(), 3))
    torch._dynamo.reset()
    with unified_guards.installed(), STATES[loaded_in]():
        made = loaded(data, programs.branching)
    for asked_in in (*STATES.values(), torch.no_grad):
        with asked_in():
            native, torchs = decisions(made, x, x.clone(), 3)
            assert native == torchs


@pytest.mark.skipif(not hasattr(RootGuardManager, compat.SETS_STATE), reason="torch before 2.14 saves no state")
def test_a_state_in_another_form_than_is_known_leaves_the_guards_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "dispatch_state", lambda state: None)
    made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
    assert not isinstance(manager_of(made), UnifiedGuardManagerWrapper)
    assert_same(made(ones(8, 4), ones(8, 4), 3), ones(8, 4) * 6)


def test_an_entry_compiled_ahead_of_time_is_checked_natively_before_it_is_saved() -> None:
    with unified_guards.installed():
        made = compiled(programs.branching, ones(8, 4), ones(8, 4), 3)
    before = unified_guards.stats().checks
    assert decisions(made, ones(8, 4), ones(8, 4), 3) == (True, True)
    assert decisions(made, ones(8, 4), ones(8, 4), 4) == (False, False)
    assert unified_guards.stats().checks == before + 2


def test_a_call_that_does_not_fit_is_told_what_torch_tells() -> None:
    made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
    assert_same(made(ones(8, 4), ones(8, 4), 3), ones(8, 4) * 6)
    with pytest.raises(RuntimeError, match=r"size mismatch at index 0\. expected 8, actual 9"):
        made(ones(9, 4), ones(9, 4), 3)


def test_dynamic_sizes_are_native() -> None:
    made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3, dynamic=True)
    calls = [(8, 4, 8, 3, True), (9, 5, 9, 7, True), (4, 2, 4, 3, True), (3, 4, 3, 3, False), (9, 5, 8, 3, False)]
    with callbacks() as called:
        for rows, columns, others, number, fits in calls:
            assert decisions(made, ones(rows, columns), ones(others, columns), number) == (fits, fits)
    assert called == [0]
    (frame,) = unified_guards.explain(made).frames
    assert frame.guard_set is not None
    assert frame.guard_set.counts_by_provenance()["shape_env"] >= 3


class TestModule:
    def loaded(self) -> Any:
        def forward(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            return net(x)

        forward.__module__, forward.__qualname__ = programs.__name__, "forward"
        # Torch 2.11 hits by what it remembers of dicts after a parameter was changed in place, where its guards fail.
        shortcuts = guards_without_shortcuts() if compat.TORCH < (2, 13) else contextlib.nullcontext()
        with shortcuts:
            return loaded_again(forward, programs.Net(), ones(8, 4))

    @pytest.mark.parametrize(
        ("change", "fits"),
        [
            (lambda net: None, True),
            (lambda net: net.load_state_dict(programs.Net().state_dict()), True),
            (lambda net: setattr(net, "negate", True), False),
            (lambda net: net.double(), False),
            (lambda net: setattr(net, "layer", torch.nn.Linear(4, 5)), False),
            (lambda net: setattr(net, "layer", torch.nn.Identity()), False),
            (lambda net: net.layer.weight.requires_grad_(False), False),
            (lambda net: delattr(net.layer, "bias"), False),
        ],
        ids=["nothing", "weights", "attribute", "dtype", "width", "layer", "gradients", "no bias"],
    )
    def test_decides_as_torch_does(self, change: Callable[[Any], object], fits: bool) -> None:
        made, net = self.loaded(), programs.Net()
        assert decisions(made, net, ones(8, 4)) == (True, True)
        change(net)
        with callbacks() as called:
            assert decisions(made, net, ones(8, 4)) == (fits, fits)
        assert called == [0]

    def test_another_module_of_the_same_class_fits(self) -> None:
        made = self.loaded()
        for _ in range(3):
            net = programs.Net()
            assert decisions(made, net, ones(8, 4)) == (True, True)
            assert_same(made(net, ones(8, 4)), net(ones(8, 4)))

    def test_what_is_remembered_of_it_is_used(self) -> None:
        made, net = self.loaded(), programs.Net()
        for _ in range(3):
            assert made.guard_check(net, ones(8, 4))
        assert unified_guards.explain(made).frames[0].roots == 1


class TestGlobals:
    def test_a_changed_global_is_seen_as_torch_sees_it(self) -> None:
        made = loaded_again(programs.scaled, ones(), 2)
        for value in (3, 4):
            made.fn.__globals__["FACTOR"] = value
            ours, torchs = decisions(made, ones(), 2)
            assert ours is torchs is True  # torch drops that guard when it saves

    def test_a_dynamic_global_is_read_where_torch_reads_it(self) -> None:
        made = loaded_again(programs.of_global, ones(5), dynamic=True)
        for length in (5, 6):
            made.fn.__globals__["LENGTH"] = length
            for rows in (5, 6, 7):
                ours, torchs = decisions(made, ones(rows))
                assert ours is torchs


class TestArguments:
    def made(self) -> Any:
        return loaded_again(programs.every_kind, ones(), ones(), ones(), factor=3, offset=1)

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((ones(), ones(), ones()), {"factor": 3, "offset": 1}),
            ((ones(),), {"y": ones(), "factor": 3, "offset": 1}),
            ((ones(), ones()), {}),
            ((ones(), ones(), ones(), ones()), {"other": 5}),
        ],
    )
    def test_are_bound_as_inspect_binds_them(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        made = self.made()
        with unified_guards.installed():
            ours = made.prepare_f_locals(*args, **kwargs)
        bound = inspect.signature(programs.every_kind).bind(*args, **kwargs)
        bound.apply_defaults()
        assert ours.keys() == bound.arguments.keys()
        assert all(ours[name] is value or ours[name] == value for name, value in bound.arguments.items())

    def test_defaults_are_those_of_the_saved_function(self) -> None:
        made = loaded_again(programs.scaled, ones())
        with unified_guards.installed():
            assert made.guard_check(ones())
            assert made.guard_check(ones(), 2)
            assert not made.guard_check(ones(), 3)

    @pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((ones(),), {"x": ones()}), ((ones(),), {})])
    def test_that_do_not_fit_raise_what_torch_raises(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        made = self.made()
        with pytest.raises(TypeError) as torchs:
            made(*args, **kwargs)
        with unified_guards.installed(), pytest.raises(TypeError) as ours:
            made(*args, **kwargs)
        assert str(ours.value) == str(torchs.value)

    def test_one_that_is_called_locals_is_bound(self) -> None:
        made = loaded_again(_of_locals, ones())
        with unified_guards.installed():
            assert list(made.prepare_f_locals(ones())) == ["locals"]
            assert decisions(made, ones()) == (True, True)

    def test_of_a_closure_come_with_its_cells(self) -> None:
        factor = 3

        def closing(x: torch.Tensor) -> torch.Tensor:
            return x * factor

        with unified_guards.installed():
            made = compiled(closing, ones())
            assert made.prepare_f_locals(one := ones()) == {"factor": 3, "x": one}
            assert made.guard_check(ones())
            factor = 4
            assert not made.guard_check(ones())


def _of_locals(locals: torch.Tensor) -> torch.Tensor:
    return locals * 2


class TestExplained:
    def test_says_what_torch_dropped_when_it_saved(self) -> None:
        with unified_guards.installed():
            data = saved(compiled(programs.scaled, ones(), 2))
            report = unified_guards.explain(loaded(data, programs.scaled))
        assert report.frames[0].saved is not None
        assert report.frames[0].saved.loaded
        assert any("G['FACTOR'] == 3" in text for text in report.frames[0].saved.dropped or ())
        assert "dropped by torch when it saved them:" in str(report)

    def test_says_so_before_it_is_loaded(self) -> None:
        with unified_guards.installed():
            made = compiled(programs.scaled, ones(), 2)
        (frame,) = unified_guards.explain(made).frames
        assert frame.saved is not None
        assert not frame.saved.loaded
        assert any("G['FACTOR'] == 3" in text for text in frame.saved.dropped or ())

    def test_says_where_it_is_not_known(self) -> None:
        made = loaded_again(programs.scaled, ones(), 2)
        (frame,) = unified_guards.explain(made).frames
        assert frame.saved is not None
        assert frame.saved.dropped is None
        assert "without unified_guards" in frame.summary()

    def test_says_nothing_of_it_where_nothing_was_saved(self) -> None:
        with unified_guards.installed():
            torch.compile(programs.scaled, backend="eager")(ones(), 2)
        (frame,) = unified_guards.explain(programs.scaled).frames
        assert frame.saved is None
        assert "torch dropped" not in str(frame)

    def test_says_why_a_call_was_refused(self) -> None:
        made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
        with pytest.raises(RuntimeError, match=r"GuardManager check failed|No AOT compiled graph matched"):
            made(ones(8, 4), ones(8, 4), 4)
        assert "refused a call because of: L['number'] == 3 (found 4)" in unified_guards.explain(made).summary()


class TestVerified:
    def test_every_check_is_compared(self) -> None:
        before = unified_guards.stats().compared
        with unified_guards.config.patch(verify=1):
            made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
        assert made.guard_check(ones(8, 4), ones(8, 4), 3)
        assert not made.guard_check(ones(8, 4), ones(8, 4), 4)
        assert unified_guards.stats().compared == before + 2

    def test_a_wrong_hit_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with unified_guards.config.patch(verify=1):
            made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
        manager_of(made).torch_root.add_lambda_guard(lambda frame: False, ["no"], None)
        found = unified_guards.dynamo.guard_manager.tally.disagreements
        monkeypatch.setattr(unified_guards.dynamo.guard_manager.tally, "disagreements", list(found))
        with pytest.raises(unified_guards.GuardDisagreement):
            made(ones(8, 4), ones(8, 4), 3)


def test_a_module_that_was_compiled_ahead_of_time_asks_its_entries() -> None:
    net = programs.Net()
    calls = [ModelInput(args=(ones(8, 4),), kwargs={}, contexts=[]), ModelInput((ones(9, 4),), {}, [torch.no_grad()])]
    with unified_guards.installed():
        with torch._dynamo.config.patch(enable_aot_compile=True):
            made = torch.compile(net, fullgraph=True, backend="eager", dynamic=False)
            made._aot_compile(calls)
        assert_same(made(ones(8, 4)), net(ones(8, 4)))
        with torch.no_grad():
            assert_same(made(ones(9, 4)), net(ones(9, 4)))
        with pytest.raises(RuntimeError, match=r"GuardManager check failed|No AOT compiled graph matched"):
            made(ones(7, 4))
    first, second = unified_guards.explain(made).frames
    assert first.counts[1] > 0
    assert second.counts[1] > 0


def test_uninstalling_keeps_the_checker_and_gives_back_what_binds_arguments() -> None:
    made = loaded_again(programs.branching, ones(8, 4), ones(8, 4), 3)
    assert isinstance(manager_of(made), UnifiedGuardManagerWrapper)
    assert AOTCompiledFunction.prepare_f_locals.__module__ == AOTCompiledFunction.__module__
    assert made.guard_check(ones(8, 4), ones(8, 4), 3)

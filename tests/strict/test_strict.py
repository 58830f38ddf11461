"""What strict guards keep, cost and leave alone beyond the cases: entries, limits, containers, settings, JSON."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unified_guards
from unified_guards.dynamo import install
from unified_guards.guards.ir import GuardSet, Test
from unified_guards.statistics import tally

from ..corpus import ENTRIES
from ..corpus.compiled import Frame
from ..harness import assert_same, collect, run_python
from .cases import Add, calling, fresh, ones
from .cases_of.classes import Plain
from .cases_of.functions import made_class
from .cases_of.memory import add_in_place, separate, views
from .running import extras


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
        frames = unified_guards.explain(module).frames  # the hook is compiled, too, by itself
        assert sum(frame.name.startswith("forward") for frame in frames) == 1


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
    assert "L['a']._base is torch.Tensor float32[8]" in frames[1].recompile_reasons[0]


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
    from unified_guards.guards.memory import storage_of

    x = torch.ones(2, 2)
    assert storage_of(x) == storage_of(x[1:]) is not None
    assert storage_of(torch.eye(2).to_sparse()) is storage_of(None) is None


def test_a_result_from_a_cache_counts_as_if_every_input_were_written_to() -> None:
    """AOTAutograd does not say which are, then."""
    from unified_guards.dynamo.strict import backend_call, known

    call = known.Call(["L['a']", "L['b']"], cached=True)
    assert backend_call.mutated(None, call) == [True, True]
    assert backend_call.mutated(None, call._replace(cached=False)) is None
    assert backend_call.mutated(None, None) is None


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
    frame, check = wrapper.entry, wrapper.entry.checker.callable()
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
                assert expected and frame.wrapper.entry.stopped_at_an_extra(), mutation
                assert mutation is not None, frame.wrapper.entry.last_failure
        finally:
            example.clean_up()
            torch._dynamo.reset()

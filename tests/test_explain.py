"""``explain()`` finds what was compiled, for whatever torch.compile takes, and says what else became of it."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
from torch import nn

import unified_guards
from unified_guards.dynamo import install, made
from unified_guards.guards.names import place

from . import harness

X = torch.ones(2, 4)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    unified_guards.install()
    yield
    unified_guards.uninstall()


@pytest.fixture
def group() -> Iterator[None]:
    """One process that is a group of its own."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def compiled(target: Any, **options: Any) -> Any:
    return torch.compile(target, backend="eager", **options)


def names(target: Any) -> list[str]:
    """What the entries that are found were compiled for."""
    return [frame.name.partition(" (")[0] for frame in unified_guards.explain(target).frames]


def times(x: torch.Tensor, factor: int = 3) -> torch.Tensor:
    return x * factor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Adds:
    def __init__(self, term: int = 1) -> None:
        self.term = term

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.term

    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return x + 2 * self.term


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args) + 1

    return around


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, args, result: None)
    return module


def sequence() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


# ---- whatever torch.compile takes ------------------------------------------------------------------------------------

TAKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: times, "times"),
    "sequential": (sequence, "Sequential"),
    "linear": (lambda: nn.Linear(4, 4), "Linear"),
    "linear with a hook": (lambda: hooked(nn.Linear(4, 4)), "Linear"),
    "sequential with a hook inside": (lambda: nn.Sequential(hooked(nn.Linear(4, 4))), "Sequential"),
    "module with a hook": (lambda: hooked(Net()), "forward"),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(4, 2, batch_first=True), "TransformerEncoderLayer"),
    "convolution": (lambda: nn.Conv1d(2, 2, 1), "Conv1d"),
    "partial": (lambda: functools.partial(times, factor=2), "partial(times)"),
    "bound method": (lambda: Adds().twice, "twice"),
    "object": (Adds, "Adds"),
    "wrapped function": (lambda: wrapped(times), "around"),
    "builtin": (lambda: torch.sin, "sin"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_torch_compile_returned_is_found(what: str) -> None:
    make, name = TAKEN[what]
    run = compiled(make())
    run(X)
    assert names(run) == [name]


@pytest.mark.parametrize("what", TAKEN)
def test_what_was_given_to_torch_compile_is_found(what: str) -> None:
    make, name = TAKEN[what]
    target = make()
    run = compiled(target)
    run(X)
    assert names(target) == [name]


@pytest.mark.parametrize("what", TAKEN)
def test_what_was_compiled_for_another_is_not_found(what: str) -> None:
    def other(x: torch.Tensor) -> torch.Tensor:
        return x - 1

    compiled(TAKEN[what][0]())(X)
    assert names(compiled(other)) == []
    assert names(compiled(nn.Tanh())) == []


def test_the_report_is_named_after_what_was_compiled() -> None:
    assert unified_guards.explain(compiled(sequence())).name == "Sequential"
    assert unified_guards.explain(compiled(functools.partial(times, factor=2))).name == "partial(times)"
    assert unified_guards.explain(compiled(Adds())).name == "Adds"


def test_a_module_that_compiles_itself_is_found() -> None:
    module = Net()
    module.compile(backend="eager")
    module(X)
    assert names(module) == ["forward"]


def test_parts_that_were_compiled_in_place_are_found_through_the_whole() -> None:
    whole = nn.ModuleList([Net(), sequence(), nn.Linear(4, 4)])
    whole[0].compile(backend="eager")
    whole[1] = compiled(whole[1])
    for part in whole:
        part(X)
    assert sorted(names(whole)) == ["Sequential", "forward"]


def test_a_forward_that_was_replaced_by_its_compiled_one_is_found() -> None:
    module = Net()
    module.forward = compiled(module.forward)  # type: ignore[method-assign]
    module(X)
    assert names(module) == ["forward"]


def test_a_class_is_found_and_its_objects() -> None:
    class Doubles:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    compiled(Doubles)
    Doubles()(X)
    assert names(Doubles) == names(Doubles()) == ["__call__"]


def test_a_method_that_is_compiled_in_its_class_is_found_on_an_object() -> None:
    class Doubles:
        @torch.compile(backend="eager")
        def twice(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    held = Doubles()
    held.twice(X)
    assert names(held.twice) == ["twice"]


def test_the_step_of_an_optimizer_is_found_and_not_that_of_another() -> None:
    def step() -> Any:
        module = Net()
        module(X).sum().backward()
        return compiled(torch.optim.SGD(module.parameters(), lr=0.1).step)

    run, other = step(), step()
    run()
    assert names(run)[-1] == "step"
    assert "step" in names(run.__wrapped__)
    assert names(other) == []


def test_what_a_function_behind_a_disabled_one_calls_is_found() -> None:
    @torch._dynamo.disable(recursive=False)
    def disabled(x: torch.Tensor) -> torch.Tensor:
        return times(x)

    def through(x: torch.Tensor) -> torch.Tensor:
        return disabled(x + 1)

    run = compiled(through)
    run(X)
    assert names(run) == ["through", "times"]


def test_what_follows_a_graph_break_is_found() -> None:
    def breaks(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return times(x)

    run = compiled(breaks)
    run(X)
    first, second = names(run)
    assert first == "breaks" and second.startswith("torch_dynamo_resume_in_breaks")


def test_a_compiled_function_that_another_wraps_is_found() -> None:
    run = wrapped(compiled(times))
    run(X)
    assert names(run) == ["times"]


@pytest.mark.usefixtures("group")
def test_a_module_inside_ddp_is_found_whichever_was_compiled() -> None:
    whole = compiled(nn.parallel.DistributedDataParallel(Net()))
    whole(X)
    assert names(whole)[-1] == "forward"
    part = nn.parallel.DistributedDataParallel(compiled(sequence()))
    part(X)
    assert names(part) == ["Sequential"]


@pytest.mark.usefixtures("group")
def test_a_module_that_fsdp_shards_is_found() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module = Net()
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    run = compiled(module)
    run(X)
    assert names(run) == names(module) == ["forward"]


# ---- modules of torch's own share their code -------------------------------------------------------------------------


def test_an_entry_that_was_made_for_a_module_alike_is_found() -> None:
    first, second = compiled(sequence(), dynamic=False), compiled(sequence(), dynamic=False)
    first(X)
    assert names(second) == ["Sequential"]
    second(torch.ones(3, 4))
    assert len(names(first)) == len(names(second)) == 2


def test_an_entry_that_was_made_for_a_module_unlike_is_not_found() -> None:
    first, second = compiled(sequence()), compiled(nn.Sequential(nn.Linear(4, 5)))
    first(X)
    second(X)
    assert len(names(first)) == len(names(second)) == 1
    assert unified_guards.explain(first).frames[0].guard_set != unified_guards.explain(second).frames[0].guard_set


def test_an_entry_stays_found_when_its_module_has_changed() -> None:
    module = nn.Sequential(nn.Dropout())
    run = compiled(module)
    run(X)
    module.eval()
    assert names(run) == ["Sequential"]
    assert names(compiled(nn.Sequential(nn.Dropout()).eval())) == []


def test_nothing_that_was_compiled_is_kept_alive() -> None:
    import weakref

    module = sequence()
    run = compiled(module)
    run(X)
    dead = weakref.ref(module)
    del run, module
    torch._dynamo.reset()
    harness.collect()
    assert dead() is None


# ---- what else became of it ------------------------------------------------------------------------------------------


def test_a_graph_break_is_told_with_its_line_and_torchs_reason() -> None:
    def breaks(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        print(end="")
        return times(x)

    run = compiled(breaks)
    run(X)
    first, last = unified_guards.explain(run).frames
    line = breaks.__code__.co_firstlineno + 2
    assert first.graph_break is not None
    assert first.graph_break.where == f"{place(__file__, line)} in breaks"
    assert "print" in first.graph_break.reason and "\n" not in first.graph_break.reason
    assert any("reorderable_logging_functions" in hint for hint in first.graph_break.hints)
    assert last.graph_break is None
    assert f"graph break at {place(__file__, line)} in breaks: " in unified_guards.explain(run).summary()


def test_a_function_that_torch_gave_up_on_says_why() -> None:
    def breaks_in_a_loop(x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            torch._dynamo.graph_break()
            x = x + 1
        return x

    run = compiled(breaks_in_a_loop)
    run(X)
    (code,) = unified_guards.explain(run).codes
    assert code.entries == 0 and "graph break in a for/while loop" in (code.uncompiled or "")
    assert f"breaks_in_a_loop ({place(__file__, None)[:-4]}" in str(unified_guards.explain(run))
    assert "has no compiled code yet" not in str(unified_guards.explain(run))


def test_a_module_of_torchs_own_that_compiles_itself_says_whether_torch_does() -> None:
    module = nn.Linear(4, 4)
    module.compile(backend="eager")
    module(X)
    text = str(unified_guards.explain(module))
    if harness.TORCH >= (2, 14):
        assert "_call_impl" in text and "lifted" in text  # torch compiles it
    elif harness.TORCH >= (2, 13):
        assert "torch.compile(module) compiles a module of torch's own, module.compile() does not" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 runs no frame where a generator is made")
def test_a_generator_says_that_torch_does_not_compile_it() -> None:
    def numbers(x: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x + 1

    list(compiled(numbers)(X))
    assert "generator" in str(unified_guards.explain(numbers))


def test_the_limit_is_told_before_and_after_it_is_reached() -> None:
    run = compiled(times, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2):
        run(X, 1)
        assert "entries, of at most 2 for each code: times 1" in unified_guards.explain(run).summary()
        assert "uncompiled" not in unified_guards.explain(run).summary()
        run(X, 2)
        assert "where no entry fits it will run uncompiled" in unified_guards.explain(run).summary()
        run(X, 3)
        (code,) = unified_guards.explain(run).codes
    assert (code.entries, code.most) == (2, 2)
    assert code.uncompiled == "torch's limit of entries is reached"
    assert "is compiled no more, and runs uncompiled where no entry fits" in str(code)


def test_the_limit_of_a_wrapper_of_its_own_is_told() -> None:
    try:
        run = compiled(times, recompile_limit=3)
    except TypeError:
        pytest.skip("this torch.compile has no recompile_limit")
    run(X)
    (code,) = unified_guards.explain(run).codes
    assert code.most == 3


# ---- entries that are torch's ----------------------------------------------------------------------------------------


def test_an_entry_that_was_compiled_before_install_says_so() -> None:
    unified_guards.uninstall()
    run = compiled(sequence())
    run(X)
    unified_guards.install()
    (frame,) = unified_guards.explain(run).frames
    assert frame.left_because == made.BEFORE_INSTALL
    assert "compiled before install()" in frame.summary() and "torch._dynamo.reset()" in frame.summary()


def test_an_entry_that_could_not_be_lifted_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from unified_guards import pipeline
    from unified_guards.dynamo.lift import CannotLift

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise CannotLift("the path is not known")

    monkeypatch.setattr(pipeline, "check_natively", fails)
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "0")
    run = compiled(times)
    run(X)
    (frame,) = unified_guards.explain(run).frames
    assert frame.left_because == "the path is not known"
    assert "torch's own guards: the path is not known" in frame.summary()


def one_before_install_and_one_after() -> tuple[Any, ...]:
    """The reports of two entries of one function, the newest first."""
    unified_guards.uninstall()
    run = compiled(times, dynamic=False)
    run(X, 1)
    unified_guards.install()
    run(X, 2)
    return unified_guards.explain(run).frames


def test_entries_of_one_function_have_a_reason_each() -> None:
    newest, oldest = one_before_install_and_one_after()
    assert newest.left_because is None and newest.guard_set is not None
    assert oldest.left_because == made.BEFORE_INSTALL


# ---- install() after something was compiled --------------------------------------------------------------------------


@pytest.fixture
def never_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_has_warned", False)


def warned() -> list[str]:
    """What install() warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unified_guards.install()
    return [str(each.message) for each in caught]


@pytest.mark.usefixtures("never_warned")
def test_install_after_something_was_compiled_says_so_once() -> None:
    unified_guards.uninstall()
    compiled(times)(X)
    (text,) = warned()
    assert f"times ({place(__file__, None)[:-4]}" in text and "one cache entry" in text
    assert "Call install() before anything is compiled, or torch._dynamo.reset() after it" in text
    unified_guards.uninstall()
    assert warned() == []


@pytest.mark.usefixtures("never_warned")
def test_install_says_nothing_where_nothing_was_compiled_or_all_was_forgotten() -> None:
    unified_guards.uninstall()
    run = compiled(times)
    assert warned() == []
    unified_guards.uninstall()
    run(X)
    torch._dynamo.reset()
    assert warned() == []


@pytest.mark.usefixtures("never_warned")
def test_install_says_nothing_of_what_it_had_compiled_itself() -> None:
    compiled(times)(X)
    assert warned() == []
    unified_guards.uninstall()
    assert warned() == []


# ---- which entry is which --------------------------------------------------------------------------------------------


def test_entries_are_the_newest_first_whichever_was_used_last() -> None:
    run = compiled(times, dynamic=False)
    for factor in (1, 2, 3, 1):
        run(X, factor)
    report = unified_guards.explain(run)
    ids = [str(frame.compile_id) for frame in report.frames]
    assert len(ids) == 3 and ids == sorted(ids, reverse=True)
    assert [frame.number for frame in report.frames] == [3, 2, 1]


def test_the_text_says_the_order_and_has_torchs_compile_ids() -> None:
    run = compiled(times, dynamic=False)
    for factor in (1, 2):
        run(X, factor)
    report = unified_guards.explain(run)
    for text in (report.summary(), str(report)):
        assert text.startswith("2 cache entries: of each function the newest first; [0/1] is torch's id")
        assert all("test_explain.py:" in title and title in text for title in (frame.title for frame in report.frames))
    assert report.frames[0].title.endswith(f"[{report.frames[0].compile_id}]")


def test_an_entry_that_was_compiled_before_install_has_torchs_compile_id() -> None:
    newest, oldest = one_before_install_and_one_after()
    assert oldest.left_because == made.BEFORE_INSTALL
    assert [str(each.compile_id).partition("/")[2] for each in (newest, oldest)] == ["1", "0"]


def test_an_entry_without_a_compile_id_has_a_number() -> None:
    frame = unified_guards.FrameReport("times (program.py:3)", None, left_because="it was loaded", number=2)
    assert frame.title == "times (program.py:3) [entry 2]"
    assert "[entry 1] is the first one" in unified_guards.Report("times", (frame,)).summary()


# ---- how many guards -------------------------------------------------------------------------------------------------


def test_guards_and_checks_are_told_apart_once() -> None:
    run = compiled(Net())
    run(X)
    (frame,) = unified_guards.explain(run).frames
    lines = frame.summary().splitlines()
    assert lines[1] == f"  {frame.lifted} guards, {frame.guards_checked} checks after simplifying"
    assert "lifted" not in frame.summary() and "merged" not in frame.summary()


def test_numbers_of_thousands_have_one_format() -> None:
    counts = (12345, 12344, 1, 0)
    run = compiled(times)
    run(X)
    (frame,) = unified_guards.explain(run).frames
    frame = dataclasses.replace(frame, counts=counts, program_nbytes=54321, guards_checked=1234)
    for number in ("12,345 times", "12,344 hits", "54,321 bytes", "1,234 checks"):
        assert number in frame.summary()
    assert "entries were asked 12,345 times: 12,344 hits" in str(unified_guards.Stats(1, {}, *counts, ()))


def test_stats_count_what_was_compiled_before_install_with_the_reason_of_explain() -> None:
    before = unified_guards.stats().frames_left_to_torch.get(made.BEFORE_INSTALL, 0)
    unified_guards.uninstall()
    run = compiled(times, dynamic=False)
    run(X, 1)
    unified_guards.install()
    run(X, 2)
    assert [frame.left_because for frame in unified_guards.explain(run).frames] == [None, made.BEFORE_INSTALL]
    for _ in range(2):
        stats = unified_guards.stats()
        assert stats.frames_left_to_torch[made.BEFORE_INSTALL] == before + 1
    assert f"  {before + 1:,} because: {made.BEFORE_INSTALL}" in str(stats)


def test_stats_only_grow_when_torch_forgets_what_was_compiled_before_install() -> None:
    unified_guards.uninstall()
    compiled(times)(X)
    unified_guards.install()
    before = unified_guards.stats().frames_left_to_torch[made.BEFORE_INSTALL]
    torch._dynamo.reset()
    assert unified_guards.stats().frames_left_to_torch[made.BEFORE_INSTALL] == before


# ---- where a line is -------------------------------------------------------------------------------------------------


def test_a_file_below_the_working_directory_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "part").mkdir()
    monkeypatch.chdir(tmp_path / "part")
    assert place(str(tmp_path / "part" / "program.py"), 3) == "program.py:3"
    assert place(str(tmp_path / "program.py"), 3) == f"{tmp_path / 'program.py'}:3"
    (tmp_path / "part").rmdir()
    assert place("program.py", 3) == "program.py:3"


def test_a_guard_names_the_line_from_the_working_directory() -> None:
    run = compiled(times)
    run(X)
    text = str(unified_guards.explain(run))
    assert f"# dynamo, {place(__file__, times.__code__.co_firstlineno + 1)}" in text
    assert f" {__file__}:" not in text

"""install(), uninstall(), installed(), stats(), explain(), the command line and the environment switches."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._dynamo.guards
import torch._guards
from torch import nn

import unified_guards

from . import harness


@pytest.fixture(autouse=True)
def uninstalled() -> Iterator[None]:
    unified_guards.uninstall()
    torch._dynamo.reset()
    yield
    unified_guards.uninstall()
    torch._dynamo.reset()


def attributes() -> dict[tuple[str, str], Any]:
    """Every attribute of everything in torch that an installation could touch; the objects, not their values."""
    from torch._dynamo import convert_frame, eval_frame, output_graph

    modules = [
        torch._dynamo.guards,
        torch._C._dynamo.guards,
        torch._C._dynamo.eval_frame,
        torch._guards,
        convert_frame,
        eval_frame,
        output_graph,
    ]
    owners: dict[str, Any] = {module.__name__: module for module in modules}
    for module in modules:
        for value in list(vars(module).values()):
            if inspect.isclass(value) and (value.__module__ or "").startswith("torch."):
                owners[f"{value.__module__}.{value.__qualname__}"] = value
    assert {
        "torch._C._dynamo.guards.GuardManager",
        "torch._C._dynamo.guards.RootGuardManager",
        "torch._C._dynamo.guards.DictGuardManager",
        "torch._dynamo.guards.CheckFunctionManager",
        "torch._dynamo.guards.GuardBuilder",
        "torch._dynamo.guards.GuardManagerWrapper",
        "torch._guards.Guard",
    } <= owners.keys()
    return {(name, key): value for name, owner in owners.items() for key, value in list(vars(owner).items())}


def differences(before: dict, after: dict) -> set[tuple[str, str]]:
    """Attributes that came, went, or are another object now (numbers that torch counts in its modules aside)."""
    common = before.keys() & after.keys()
    changed = {key for key in common if before[key] is not after[key] and not isinstance(before[key], int | float)}
    return changed | (before.keys() ^ after.keys())


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def compiled(function: Callable = double, **options: Any) -> Callable:
    return torch.compile(function, backend="eager", dynamic=False, **options)


def entry(function: Callable = double) -> Any:
    (found,) = harness.cache_entries(function)
    return found


def is_lifted(function: Callable = double) -> bool:
    return type(entry(function).guard_manager) is not torch._dynamo.guards.GuardManagerWrapper


def counted(call: Callable[[], Any]) -> dict[str, Any]:
    """What ``call`` adds to the numbers of stats()."""
    before = dataclasses.asdict(unified_guards.stats())
    call()
    after = dataclasses.asdict(unified_guards.stats())
    return {name: after[name] - before[name] for name in ("frames_lifted", "checks", "hits", "misses")}


class TestInstall:
    def test_changes_something_and_puts_all_of_it_back(self) -> None:
        before = attributes()
        unified_guards.install()
        assert differences(before, attributes())
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()

    def test_puts_all_of_it_back_after_compiling(self) -> None:
        compiled()(torch.ones(3))
        torch._dynamo.reset()
        before = attributes()
        unified_guards.install()
        run = compiled()
        run(torch.ones(3))
        run(torch.ones(4))
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()

    def test_puts_all_of_it_back_after_a_failed_compile(self) -> None:
        def failing(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            raise RuntimeError("no such backend")

        compiled()(torch.ones(3))
        before = attributes()
        with unified_guards.installed(), pytest.raises(Exception, match="no such backend"):
            torch.compile(lambda x: x + 1, backend=failing)(torch.ones(3))
        assert differences(before, attributes()) == set()

    def test_is_idempotent(self) -> None:
        before = attributes()
        unified_guards.install()
        first = attributes()
        unified_guards.install()
        assert differences(first, attributes()) == set()
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()

    def test_leaves_alone_what_others_changed_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def check(self: Any, x: Any) -> Any:
            return "patched"

        monkeypatch.setattr(torch._dynamo.guards.GuardManagerWrapper, "check", check)
        before = attributes()
        with unified_guards.installed():
            pass
        assert differences(before, attributes()) == set()
        assert vars(torch._dynamo.guards.GuardManagerWrapper)["check"] is check

    def test_affects_only_what_is_compiled_while_installed(self) -> None:
        def earlier(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        def later(x: torch.Tensor) -> torch.Tensor:
            return x + 2

        runs = {function: compiled(function) for function in (earlier, double, later)}
        runs[earlier](torch.ones(3))
        with unified_guards.installed():
            runs[double](torch.ones(3))
        runs[later](torch.ones(3))
        assert not is_lifted(earlier)
        assert is_lifted(double)
        assert not is_lifted(later)
        for function, checks in ((earlier, 0), (double, 1), (later, 0)):
            assert counted(lambda run=runs[function]: run(torch.ones(3)))["checks"] == checks
        with unified_guards.installed():
            assert counted(lambda: runs[earlier](torch.ones(3)))["checks"] == 0

    def test_compiled_while_installed_goes_on_afterwards(self) -> None:
        with unified_guards.installed():
            watched = harness.static(double)
            watched.expect(1, torch.ones(3))
        watched.expect(1, torch.ones(3))
        watched.expect(2, torch.ones(4))
        kinds = [type(found.guard_manager) for found in harness.cache_entries(double)]
        assert torch._dynamo.guards.GuardManagerWrapper in kinds
        assert len(set(kinds)) == 2
        for size in (3, 4, 3):
            watched.expect(2, torch.ones(size))
        with unified_guards.installed():
            watched.expect(3, torch.ones(5))
        for size in (3, 4, 5):
            watched.expect(3, torch.ones(size))

    def test_wrapper_is_torchs_kind(self) -> None:
        with unified_guards.installed():
            compiled()(torch.ones(3))
        manager = entry().guard_manager
        assert isinstance(manager, torch._dynamo.guards.GuardManagerWrapper)
        assert type(manager.root) is torch._C._dynamo.guards.RootGuardManager
        assert "TENSOR_MATCH" in str(manager)
        assert manager.check({"x": torch.ones(3)}) is True
        assert manager.check({"x": torch.ones(4)}) is False
        assert manager.check_verbose({"x": torch.ones(3)}).result
        assert "size mismatch" in manager.check_verbose({"x": torch.ones(4)}).verbose_code_parts[0]
        assert manager.collect_diff_guard_sources() is not None

    def test_context_manager_nests(self) -> None:
        before = attributes()
        with unified_guards.installed():
            inside = attributes()
            with unified_guards.installed():
                assert differences(inside, attributes()) == set()
            assert differences(inside, attributes()) == set()
            compiled()(torch.ones(3))
        assert is_lifted()
        assert differences(before, attributes()) == set()

    def test_context_manager_inside_an_installation_leaves_it(self) -> None:
        unified_guards.install()
        inside = attributes()
        with unified_guards.installed():
            pass
        assert differences(inside, attributes()) == set()

    def test_context_manager_passes_exceptions_on(self) -> None:
        before = attributes()
        with pytest.raises(KeyError, match="mine"), unified_guards.installed():
            raise KeyError("mine")
        assert differences(before, attributes()) == set()

    def test_threads_install_and_uninstall(self) -> None:
        before = attributes()
        failures: list[BaseException] = []
        start = threading.Barrier(4)

        def work(action: Callable[[], None]) -> None:
            try:
                start.wait(60)
                for _ in range(200):
                    action()
            except BaseException as error:  # in a thread it would be lost
                failures.append(error)

        def context() -> None:
            with unified_guards.installed():
                pass

        actions = [unified_guards.install, unified_guards.uninstall, context, context]
        harness.run_threads([lambda action=action: work(action) for action in actions])
        assert not failures
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()

    def test_threads_install_while_others_compile(self) -> None:
        before = attributes()
        failures: list[BaseException] = []
        stop = threading.Event()

        def toggle() -> None:
            try:
                while not stop.is_set():
                    with unified_guards.installed():
                        pass
            except BaseException as error:  # in a thread it would be lost
                failures.append(error)

        def compile_much() -> None:
            try:
                for scale in range(8):
                    function = eval(f"lambda x: x * {scale} + 1")
                    run = compiled(function)
                    for size in (3, 4, 3):
                        torch.testing.assert_close(run(torch.ones(size)), torch.ones(size) * scale + 1)
            except BaseException as error:  # in a thread it would be lost
                failures.append(error)
            finally:
                stop.set()

        harness.run_threads([toggle, compile_much])
        assert not failures
        unified_guards.uninstall()
        assert differences(before, attributes()) == set()


class TestStats:
    def test_is_a_dataclass_of_numbers(self) -> None:
        stats = unified_guards.stats()
        assert dataclasses.is_dataclass(stats)
        for name in ("frames_lifted", "checks", "hits", "misses", "python_callbacks"):
            assert type(getattr(stats, name)) is int
        assert isinstance(stats.frames_left_to_torch, dict)
        assert f"{stats.checks:,}" in str(stats)

    def test_hits_add_up_in_words(self) -> None:
        fresh = dataclasses.replace(
            unified_guards.stats(), checks=13, hits=12, misses=1, witness_held=7, witness_repaired=2
        )
        assert "entries were asked 13 times: 12 hits, 1 miss" in str(fresh)
        assert "hits: 7 by memory alone, 2 after repairing it, 3 by evaluating all checks" in str(fresh)

    def test_hits_are_by_memory_alone_or_repaired_or_evaluated(self) -> None:
        unified_guards.install()
        model = nn.Linear(3, 3)
        run = compiled(lambda x: model(x))
        before = unified_guards.stats()
        for step in range(12):
            model.extra = step  # type: ignore[assignment]
            run(torch.ones(3))
            run(torch.ones(3))
        after = unified_guards.stats()
        hits = after.hits - before.hits
        held, repaired = (getattr(after, name) - getattr(before, name) for name in ("witness_held", "witness_repaired"))
        assert hits == 23 and held > 0 and held + repaired <= hits

    def test_what_did_not_happen_is_no_line(self) -> None:
        empty = unified_guards.Stats(0, {}, 0, 0, 0, 0, ())
        assert str(empty) == "cache entries: 0 checked natively, 0 left to torch"

    def test_is_a_snapshot(self) -> None:
        unified_guards.install()
        stats = unified_guards.stats()
        run = compiled()
        run(torch.ones(3))
        run(torch.ones(3))
        assert unified_guards.stats().checks > stats.checks
        assert stats.checks < unified_guards.stats().checks

    def test_lifting(self) -> None:
        unified_guards.install()
        run = compiled()
        assert counted(lambda: run(torch.ones(3)))["frames_lifted"] == 1
        assert counted(lambda: run(torch.ones(3)))["frames_lifted"] == 0
        assert counted(lambda: run(torch.ones(4)))["frames_lifted"] == 1

    def test_hits_and_misses(self) -> None:
        unified_guards.install()
        run = compiled()
        run(torch.ones(3))
        moved = counted(lambda: [run(torch.ones(3)) for _ in range(10)])
        assert moved == {"frames_lifted": 0, "checks": 10, "hits": 10, "misses": 0}
        with torch.compiler.set_stance("eager_on_recompile"):
            moved = counted(lambda: run(torch.ones(4)))
        assert moved == {"frames_lifted": 0, "checks": 1, "hits": 0, "misses": 1}

    def test_lookup_in_a_list_of_entries(self) -> None:
        unified_guards.install()
        run = compiled()
        for size in (3, 4, 5):
            run(torch.ones(size))
        moved = counted(lambda: run(torch.ones(3)))  # behind 5 and 4
        assert moved == {"frames_lifted": 0, "checks": 3, "hits": 1, "misses": 2}
        moved = counted(lambda: run(torch.ones(3)))  # a hit moves to the front
        assert moved == {"frames_lifted": 0, "checks": 1, "hits": 1, "misses": 0}

    def test_nothing_moves_without_an_installation(self) -> None:
        before = unified_guards.stats()
        run = compiled()
        for size in (3, 4, 3):
            run(torch.ones(size))
        assert unified_guards.stats() == before

    def test_no_python_callbacks_for_plain_guards(self) -> None:
        unified_guards.install()
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        run = compiled(lambda x, scale, items: model(x) * scale + items["offset"])
        run(torch.ones(3), 2, {"offset": 1})
        before = unified_guards.stats().python_callbacks
        for _ in range(5):
            run(torch.ones(3), 2, {"offset": 1})
        assert unified_guards.stats().python_callbacks == before


class TestExplain:
    @pytest.mark.parametrize("target", [double, double.__code__], ids=["function", "code"])
    def test_uncompiled_function(self, target: Any) -> None:
        text = str(unified_guards.explain(target))
        assert "double" in text
        assert "torch.compile" in text
        assert "install()" in text

    @pytest.mark.parametrize("kind", ["function", "code", "compiled"])
    def test_compiled_function(self, kind: str) -> None:
        unified_guards.install()
        run = compiled()
        run(torch.ones(3))
        report = unified_guards.explain({"function": double, "code": double.__code__, "compiled": run}[kind])
        assert "double" in str(report)
        assert "x" in str(report)
        assert Path(__file__).name in str(report)

    def test_module(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(3, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.linear(x)

        unified_guards.install()
        model = Model()
        run = compiled(model)
        run(torch.ones(3))
        for target in (model, run):
            text = str(unified_guards.explain(target))
            assert "linear" in text
            assert "weight" in text

    @pytest.mark.parametrize(
        "old, new",
        [
            ("checks", "guards_checked"),
            ("misses", "recompile_reasons"),
            ("missed", "recompilations"),
            ("telling", "discriminators"),
        ],
    )
    def test_old_names_of_a_report_warn(self, old: str, new: str) -> None:
        unified_guards.install()
        run = compiled()
        run(torch.ones(3))
        run(torch.ones(4))
        oldest = unified_guards.explain(run).frames[-1]
        with pytest.warns(DeprecationWarning, match=f"FrameReport.{old} is now FrameReport.{new}"):
            found = getattr(oldest, old)
        assert found and found == getattr(oldest, new)

    def test_compiled_without_an_installation(self) -> None:
        compiled()(torch.ones(3))
        assert "compiled before install()" in str(unified_guards.explain(double))

    def test_something_that_is_no_function(self) -> None:
        with pytest.raises(TypeError, match="int"):
            unified_guards.explain(3)  # type: ignore[arg-type]


PROGRAM = """
import os, sys
print("name", __name__)
print("arguments", sys.argv[1:])
print("script", os.path.basename(sys.argv[0]), "file", os.path.basename(__file__))
print("beside", sys.path[0] == os.path.dirname(os.path.abspath(__file__)))
import torch
run = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
for size in (3, 4, 3):
    assert torch.equal(run(torch.ones(size)), torch.ones(size) * 2)
print("imported", "unified_guards" in sys.modules)
if "unified_guards" in sys.modules:
    stats = sys.modules["unified_guards"].stats()
    print("lifted", stats.frames_lifted, "hits", stats.hits > 0)
sys.exit(int(sys.argv[-1]))
"""


def fails_to_lift(monkeypatch_lines: str = "") -> str:
    """A program whose one frame cannot be lifted, because lifting is made to fail."""
    return textwrap.dedent(
        f"""
        import torch, unified_guards
        from unified_guards import pipeline
        from unified_guards.dynamo import unify

        def lift(*args, **kwargs):
            raise unify.CannotLift("made to fail")

        pipeline.lift = lift
        unified_guards.install()
        run = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
        {monkeypatch_lines}
        assert torch.equal(run(torch.ones(3)), torch.ones(3) * 2)
        assert torch.equal(run(torch.ones(3)), torch.ones(3) * 2)
        print(unified_guards.stats().frames_left_to_torch)
        """
    )


class TestCommandLine:
    def run(self, *arguments: str) -> Any:
        return harness.run_python("-m", "unified_guards", *arguments)

    @pytest.mark.parametrize("status", [0, 7])
    def test_runs_an_unchanged_script(self, tmp_path: Path, status: int) -> None:
        script = tmp_path / "program.py"
        script.write_text(PROGRAM)
        done = self.run("run", str(script), "--flag", "value", str(status))
        assert done.returncode == status, done.stderr
        assert "name __main__" in done.stdout
        assert f"arguments ['--flag', 'value', '{status}']" in done.stdout
        assert "script program.py file program.py" in done.stdout
        assert "beside True" in done.stdout
        assert "lifted 2 hits True" in done.stdout

    def test_runs_a_script_with_helpers_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "helper_beside.py").write_text("VALUE = 5\n")
        (tmp_path / "program.py").write_text(
            "import helper_beside\nif __name__ == '__main__':\n    print(helper_beside.VALUE)\n"
        )
        done = self.run("run", str(tmp_path / "program.py"))
        assert done.returncode == 0, done.stderr
        assert "5" in done.stdout.split()

    def test_exception_of_the_script(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("def fail():\n    raise ValueError('from the script')\n\n\nfail()\n")
        done = self.run("run", str(tmp_path / "program.py"))
        assert done.returncode == 1
        assert "ValueError: from the script" in done.stderr
        assert "line 2, in fail" in done.stderr

    def test_missing_script(self, tmp_path: Path) -> None:
        done = self.run("run", str(tmp_path / "nowhere.py"))
        assert done.returncode not in (0, 1), done.stdout  # 1 is a script that failed
        assert "nowhere.py" in done.stderr
        assert "Traceback" not in done.stderr

    def test_without_a_command(self) -> None:
        done = self.run()
        assert done.returncode != 0
        assert "usage" in (done.stdout + done.stderr).lower()
        assert "run" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr

    def test_help(self) -> None:
        done = self.run("--help")
        assert done.returncode == 0
        assert "run" in done.stdout


class TestEnvironment:
    def program(self, tmp_path: Path, text: str, **environ: str) -> Any:
        script = tmp_path / "program.py"
        script.write_text(text)
        return harness.run_python(str(script), "0", environ=environ)

    def test_autoload(self, tmp_path: Path) -> None:
        done = self.program(tmp_path, PROGRAM, UNIFIED_GUARDS="1")
        assert done.returncode == 0, done.stderr
        assert "imported True" in done.stdout
        assert "lifted 2 hits True" in done.stdout

    @pytest.mark.parametrize("value", [None, "", "0"])
    def test_no_autoload(self, tmp_path: Path, value: str | None) -> None:
        done = self.program(tmp_path, PROGRAM, **({} if value is None else {"UNIFIED_GUARDS": value}))
        assert done.returncode == 0, done.stderr
        assert "imported False" in done.stdout

    def test_verify(self, tmp_path: Path) -> None:
        text = """
        import torch, unified_guards
        from torch import nn

        unified_guards.install()
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU())
        scale = 2
        run = torch.compile(lambda x, items: model(x) * items["scale"] + scale, backend="eager", dynamic=False)
        items = {"scale": 2}

        def same(x):
            torch.manual_seed(0)
            torch.testing.assert_close(run(x, items), model(x) * items["scale"] + scale)

        for _ in range(2):
            same(torch.ones(2, 3))
            same(torch.ones(5, 3))
            items["scale"] += 1
            same(torch.ones(2, 3))
            model.eval()
            same(torch.ones(2, 3))
            scale += 1
            same(torch.ones(2, 3))
        stats = unified_guards.stats()
        assert stats.frames_lifted and stats.hits and stats.misses, stats
        print("verified")
        """
        done = self.program(tmp_path, textwrap.dedent(text), UNIFIED_GUARDS_VERIFY="1")
        assert done.returncode == 0, done.stderr
        assert "verified" in done.stdout

    def test_verify_raises_on_a_disagreement(self, tmp_path: Path) -> None:
        """A simplifier that is wrong on purpose makes the native checker accept what torch's tree does not."""
        text = """
        import torch, unified_guards
        from unified_guards.simplify import driver
        from unified_guards.guards.ir import Test

        driver.RULES["wrong on purpose"] = lambda work: ((g, None) for g in work.all(Test.EQUALS))
        unified_guards.install()
        run = torch.compile(lambda x, mode: x * 2 if mode == "twice" else x * 3, backend="eager")
        run(torch.ones(3), "twice")
        try:
            run(torch.ones(3), "thrice")
        except unified_guards.GuardDisagreement as error:
            assert "True" in str(error) and "False" in str(error), error
            print("disagreed")
        """
        done = self.program(tmp_path, textwrap.dedent(text), UNIFIED_GUARDS_VERIFY="1")
        assert "disagreed" in done.stdout, done.stderr

    def test_verify_tolerates_user_code_that_changes_its_mind(self, tmp_path: Path) -> None:
        """A getter that raises every other time: torch's own tree contradicts itself, and nothing is reported."""
        text = """
        import torch, unified_guards

        class Value:
            pass

        def getter(self):
            asked.append(1)
            if len(asked) % 2 == 1:
                raise AttributeError("extra")
            return 1

        asked = []
        unified_guards.install()
        run = torch.compile(lambda x, value: x * 2 if hasattr(value, "extra") else x * 3, backend="eager")
        value = Value()
        run(torch.ones(3), value)
        Value.extra = property(getter)
        run(torch.ones(3), value)
        print(len(unified_guards.stats().disagreements), "disagreements")
        """
        done = self.program(tmp_path, textwrap.dedent(text), UNIFIED_GUARDS_VERIFY="1")
        assert "0 disagreements" in done.stdout, done.stderr

    def test_fallback_is_counted(self, tmp_path: Path) -> None:
        done = self.program(tmp_path, fails_to_lift())
        assert done.returncode == 0, done.stderr
        assert "{'made to fail': 1}" in done.stdout

    def test_no_fallback(self, tmp_path: Path) -> None:
        done = self.program(tmp_path, fails_to_lift(), UNIFIED_GUARDS_NO_FALLBACK="1")
        assert done.returncode == 1
        assert "FallbackError" in done.stderr
        assert "made to fail" in done.stderr

    def test_internal_error_leaves_torchs_guards_with_one_warning(self, tmp_path: Path) -> None:
        text = fails_to_lift().replace('unify.CannotLift("made to fail")', 'ZeroDivisionError("made to fail")')
        text += "assert torch.equal(run(torch.ones(4)), torch.ones(4) * 2)\nprint(unified_guards.stats())\n"
        done = self.program(tmp_path, text)
        assert done.returncode == 0, done.stderr
        assert "2 left to torch" in done.stdout
        assert done.stderr.count("UserWarning") == 1
        assert "made to fail" in done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("unified_guards.ir", "unified_guards.guards.ir"),
        ("unified_guards.attribute_hooks", "unified_guards.dynamo.attribute_getters"),
    ],
)
def test_the_old_name_of_a_module_warns(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=new):
        module = importlib.import_module(old)
    for name in module.__all__:
        assert getattr(module, name) is getattr(importlib.import_module(new), name)

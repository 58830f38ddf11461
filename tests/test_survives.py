"""Programs that plain torch does not survive, and long runs: with unified guards both end well.

Every program runs in a process of its own, because without unified guards some of them end by a signal.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from . import harness

TORCH = harness.Environment("torch")
UNIFIED = harness.Environment("unified", "import unified_guards; unified_guards.install()")

COMMON = """
import contextlib, enum, gc, json, os, sys
import torch
from torch import nn
PRELUDE

graphs = 0


def counting(graph, inputs):
    global graphs
    graphs += 1
    return graph.forward


def compiled(function):
    return torch.compile(function, backend=counting, dynamic=False)


def state():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._is_torch_function_enabled(),
        torch._C._is_torch_function_all_disabled(),
    )
"""


def dedented(*parts: str) -> str:
    return "\n".join(map(textwrap.dedent, parts))


def survives(tmp_path: Path, *parts: str) -> None:
    done = UNIFIED.run(tmp_path / "program.py", dedented(COMMON, *parts))
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"


NESTED = """
    def function(x, y):
        return x * 2 + y

    def nested():
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])

    def call_with_nested():
        result = run(nested(), nested())
        for got, want in zip(result.unbind(), function(nested(), nested()).unbind(), strict=True):
            torch.testing.assert_close(got, want)

    run = compiled(function)
    before = state()
    x, y = torch.ones(2, 3), torch.ones(2, 3) * 2
    run(x, y)
    assert graphs == 1
"""


def test_strided_nested_tensor(tmp_path: Path) -> None:
    """The guard fails, Dynamo tries to compile, says that it cannot, and runs the frame eagerly from then on."""
    script = """
    torch._logging.set_logs(recompiles=True, graph_breaks=True)
    for _ in range(3):
        call_with_nested()
        torch.testing.assert_close(run(x, y), function(x, y))
        torch.testing.assert_close(run(x, x), function(x, x))
    assert state() == before
    """
    done = UNIFIED.run(tmp_path / "program.py", dedented(COMMON, NESTED, script))
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-6000:]}"
    assert "Recompiling function function" in done.stderr
    assert "strided NestedTensor" in done.stderr


def test_strided_nested_tensor_without_unified_guards(tmp_path: Path) -> None:
    """Shows that torch does not survive the program above, on the versions where that is so."""
    done = TORCH.run(tmp_path / "program.py", dedented(COMMON, NESTED, 'call_with_nested()\nprint("survived")'))
    assert done.returncode < 0 or "survived" in done.stdout, f"neither killed nor survived: {done.stderr[-3000:]}"


def test_state_is_intact_after_a_guard_threw(tmp_path: Path) -> None:
    script = """
    with torch.compiler.set_stance("eager_on_recompile"):
        call_with_nested()
        assert state() == before, (state(), before)
        with torch.no_grad():
            inside = state()
            call_with_nested()
            assert state() == inside
        assert state() == before
        call_with_nested()
    for _ in range(3):  # nothing that the failed check has seen counts as a duplicate of these
        run(x, y)
        run(y, x)
    assert graphs == 1
    run(x, x)
    assert graphs == 2
    """
    survives(tmp_path, NESTED, script)


def test_entries_behind_the_one_that_threw(tmp_path: Path) -> None:
    """A throwing guard in one entry does not keep the lookup from the next."""
    script = """
    for size in (4, 5):
        run(torch.ones(size), torch.ones(size))
    assert graphs == 3
    with torch.compiler.set_stance("eager_on_recompile"):
        for size in (4, 5, 4):
            call_with_nested()
            run(torch.ones(size), torch.ones(size))
            run(x, y)
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in (4, 5, 4):
            run(torch.ones(size), torch.ones(size))
            run(x, y)
    assert graphs == 3
    """
    survives(tmp_path, NESTED, script)


def test_stance_that_fails_on_recompile(tmp_path: Path) -> None:
    script = """
    with torch.compiler.set_stance("fail_on_recompile"):
        try:
            run(nested(), nested())
        except RuntimeError as error:
            assert "fail_on_recompile" in str(error), error
        else:
            raise AssertionError("no recompile was detected")
        run(x, y)
    assert state() == before
    """
    survives(tmp_path, NESTED, script)


def test_key_whose_comparison_raises(tmp_path: Path) -> None:
    """Eager raises here too; nothing may end as a SystemError or linger on as a pending error."""
    script = """
    class Key:
        armed = None

        def __hash__(self):
            return hash("flag")

        def __eq__(self, other):
            if Key.armed:
                raise Key.armed("comparison")
            return False

    run = compiled(lambda x, table: x * 2 if "flag" in table else x * 3)
    table = {"other": 1}
    run(torch.ones(2), table)
    before = state()
    for error in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
        Key.armed = error
        try:
            run(torch.ones(2), {Key(): 1})
        except BaseException as raised:  # `error`, or what torch makes of it
            assert not isinstance(raised, SystemError), raised
        else:
            raise AssertionError("eager raises")
        Key.armed = None
        assert state() == before
        for _ in range(3):
            torch.testing.assert_close(run(torch.ones(2), table), torch.ones(2) * 3)
    assert graphs == 1
    """
    survives(tmp_path, script)


def test_key_whose_hash_raises(tmp_path: Path) -> None:
    script = """
    class Key(enum.Enum):
        SCALE = 2

        def __hash__(self):
            if armed:
                raise armed("hash")
            return 7

    armed = None
    run = compiled(lambda x, table: x * table[Key.SCALE])
    table, other = {Key.SCALE: 5}, {"other": 1}
    torch.testing.assert_close(run(torch.ones(2), table), torch.ones(2) * 5)
    before = state()
    for error in (ValueError, KeyboardInterrupt):
        armed = error
        try:
            run(torch.ones(2), other)
        except BaseException as raised:  # `error`, or what torch makes of it
            assert not isinstance(raised, SystemError), raised
        else:
            raise AssertionError("eager raises")
        armed = None
        assert state() == before
        for _ in range(3):
            torch.testing.assert_close(run(torch.ones(2), table), torch.ones(2) * 5)
    assert graphs == (0 if torch.__version__.startswith("2.11.") else 1)  # which does not trace such a key
    """
    survives(tmp_path, script)


def test_getter_that_raises(tmp_path: Path) -> None:
    """To torch an attribute whose getter raises anything is missing; so it is to us."""
    script = """
    class Value:
        pass

    def getter(self):
        raise error("getter")

    run = compiled(lambda x, value: x * 2 if hasattr(value, "extra") else x * 3)
    value = Value()
    run(torch.ones(2), value)
    Value.extra = property(getter)
    before = state()
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        torch.testing.assert_close(run(torch.ones(2), value), torch.ones(2) * 3)
        assert state() == before
    assert graphs == 1
    """
    survives(tmp_path, script)


def test_truth_value_that_raises(tmp_path: Path) -> None:
    """A guard of user code returns an object whose ``__bool__`` raises: a miss, and no error left behind."""
    script = """
    from torch.utils import _pytree as pytree

    armed = False

    class Truth:
        def __bool__(self):
            global armed
            if armed:
                armed = False
                raise ValueError("truth")
            return True

    class Wrapper(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        def __init__(self, inner):
            self.inner = inner

        def __tensor_flatten__(self):
            return ["inner"], {}

        @classmethod
        def __metadata_guard__(cls, saved, current):
            return Truth()

        @staticmethod
        def __tensor_unflatten__(inner, metadata, size, stride):
            return Wrapper(inner["inner"])

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            args, kwargs = pytree.tree_map_only(Wrapper, lambda x: x.inner, (args, kwargs or {}))
            return pytree.tree_map_only(torch.Tensor, Wrapper, func(*args, **kwargs))

    run = compiled(lambda x: x * 2)
    for _ in range(2):
        run(Wrapper(torch.ones(2)))
    assert graphs == 1
    armed = True
    torch.testing.assert_close(run(Wrapper(torch.ones(2))).inner, torch.ones(2) * 2)
    assert not armed
    torch.testing.assert_close(run(Wrapper(torch.ones(2))).inner, torch.ones(2) * 2)
    """
    survives(tmp_path, script)


def test_memory_is_flat_over_many_calls(tmp_path: Path) -> None:
    """100,000 calls: hits, misses that go on to a second entry, a changing attribute, tensors made anew."""
    script = """
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    class Settings:
        scale = 2

    def function(x, settings, items):
        return x * settings.scale + items["offset"]

    torch.set_num_threads(1)
    run = compiled(function)
    settings, items = Settings(), {"offset": 1}
    inputs = [torch.ones(3), torch.ones(4)]

    def calls(count):
        for step in range(count):
            settings.unread = step
            if step % 10 == 0:
                items = {"offset": 1}
                inputs[step // 10 % 2] = torch.ones(3 + step // 10 % 2)
            run(inputs[step % 2], settings, items)

    calls(20_000)
    gc.collect()
    before = resident()
    calls(100_000)
    gc.collect()
    assert graphs == 2, graphs
    grown = resident() - before
    print("grown", grown)
    assert grown < 3 * 2**20, grown
    """
    survives(tmp_path, script)


def test_memory_is_flat_when_every_check_fails(tmp_path: Path) -> None:
    script = """
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    class Settings:
        def __init__(self, scale):
            self.scale = scale

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    run = compiled(lambda model, x, settings: model(x) * settings.scale)
    run(model, torch.ones(1, 3), Settings(2))

    def calls(count):
        for step in range(count):
            run(model, torch.ones(1, 3), Settings(10 + step))

    with torch.compiler.set_stance("eager_on_recompile"):
        calls(300)
        gc.collect()
        before = resident()
        calls(3_000)
        gc.collect()
    assert graphs == 1, graphs
    grown = resident() - before
    assert grown < 2**20, grown
    """
    survives(tmp_path, script)


CYCLES = """
    import weakref
    from torch._dynamo.guards import GuardManagerWrapper

    class Model(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.scale = scale

        def forward(self, x):
            return self.linear(x) * self.scale

    def count():
        things = gc.get_objects()
        kinds = (torch.Tensor, nn.Module, GuardManagerWrapper)
        return [len(things), *(sum(1 for thing in things if isinstance(thing, kind)) for kind in kinds)]

    counts, dead = [], []
    for cycle in range(20):
        model = Model(cycle)
        run = torch.compile(model, backend="eager", dynamic=False)
        for rows in (2, 2, 5):
            run(torch.ones(rows, 3))
        dead.append(weakref.ref(model))
        del model, run
        RESET
        gc.collect()
        if cycle in (6, 19):
            counts.append(count())
    assert not any(ref() for ref in dead)
    print(json.dumps([after - before for before, after in zip(*counts)]))
"""


@pytest.mark.parametrize("reset", ["torch._dynamo.reset()", "pass"], ids=["reset", "kept"])
def test_compiling_in_a_loop_leaks_no_more_than_torch(tmp_path: Path, reset: str) -> None:
    """Torch itself keeps the wrapper of every entry as long as a class lives that the entry identifies."""
    grown = {}
    for env in (TORCH, UNIFIED):
        script = dedented(COMMON, CYCLES).replace("RESET", reset)
        done = env.run(tmp_path / f"program_{env.name}.py", script)
        assert done.returncode == 0, done.stderr[-6000:]
        grown[env.name] = dict(zip(("objects", "tensors", "modules", "wrappers"), json.loads(done.stdout), strict=True))
    theirs, ours = grown["torch"], grown["unified"]
    for kind in ("tensors", "modules", "wrappers"):
        assert ours[kind] <= theirs[kind], grown
    assert ours["objects"] <= 2 * theirs["objects"] + 100, grown  # what we keep hangs on the wrappers that torch keeps


RESETS = """
    import threading

    class Asked:
        def __getattr__(self, name):
            doing = vars(self).pop("doing", None)
            if doing is not None:
                doing()
                gc.collect()
                vars(self)["junk"] = [bytes(200) for _ in range(2000)]  # where something was freed, something else is
            raise AttributeError(name)

    asked, then_asked, run = Asked(), Asked(), None

    def function(x, asked, then_asked):
        return x if hasattr(asked, "extra") or hasattr(then_asked, "extra") else helper(x)

    def make_helper():
        exec("def helper(x): return x + 1", globals())

    def warm():
        global run
        if run is None:
            run = compiled(function)
        for size in (3, 2, 2):
            run(torch.ones(size), asked, then_asked)

    def ask(doing, size=2):
        warm()
        vars(asked)["doing"] = doing
        got = run(torch.ones(size), asked, then_asked)
        assert "doing" not in vars(asked), "not even asked"
        assert got.tolist() == function(torch.ones(size), asked, then_asked).tolist(), got
        vars(then_asked).pop("extra", None)

    def reset():
        torch._dynamo.reset()

    def reset_and_miss():
        torch._dynamo.reset()
        then_asked.extra = 1

    def in_a_thread():
        thread = threading.Thread(target=torch._dynamo.reset)
        thread.start()
        thread.join()

    def again():
        torch._dynamo.reset()
        warm()
        torch._dynamo.reset()

    def remove():
        torch._dynamo.eval_frame.remove_from_cache(function)

    def drop():
        global run
        torch._dynamo.reset()
        run = None

    def replace_code():
        function.__code__ = (lambda x, asked, then_asked: helper(x)).__code__
        torch._dynamo.reset()
"""

SWITCHES: list[dict[str, str]] = [
    {"UNIFIED_GUARDS_DISPATCH": way, **tier}
    for way in ("0", "1")
    for tier in ({}, {"UNIFIED_GUARDS_WITNESS": "0"}, {"UNIFIED_GUARDS_VERIFY": "1"})
]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "-".join(switches.values()))
def test_reset_within_a_guard(tmp_path: Path, switches: dict[str, str]) -> None:
    """Code of a user's that a guard runs frees what torch's lookup walks, and the checker that runs."""
    script = """
    make_helper()
    for doing in (reset, reset_and_miss, in_a_thread, again, remove, drop, make_helper):
        for _ in range(3):
            ask(doing)
    ask(reset, size=3)  # the entry behind the first
    ask(replace_code)
    print("survived")
    """
    path = tmp_path / "program.py"
    path.write_text(dedented(COMMON, RESETS, script).replace("PRELUDE", UNIFIED.prelude))
    done = harness.run_python(str(path), environ=switches)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-6000:]}"
    assert "survived" in done.stdout


def test_uninstall_within_a_guard(tmp_path: Path) -> None:
    script = """
    def uninstall():
        unified_guards.uninstall()
        torch._dynamo.reset()

    make_helper()
    for _ in range(3):
        torch._dynamo.reset()  # torch's own guards do not survive this
        unified_guards.install()
        ask(uninstall)
    assert not unified_guards.is_installed()
    """
    survives(tmp_path, RESETS, script)


def test_what_a_reset_within_a_guard_kept_is_freed(tmp_path: Path) -> None:
    """By the next check after torch's lookup is over, whichever that is. The short way keeps nothing."""
    script = """
    unified_guards.config.dispatch = False
    import weakref
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    make_helper()
    warm()
    other = compiled(lambda x: x + 1)
    other(torch.ones(2))
    kept = []
    for _ in range(5):
        warm()
        entries = _debug_get_cache_entry_list(function.__code__)
        kept += [weakref.ref(entry.code) for entry in entries]
        del entries
        ask(reset)
        assert any(reference() for reference in kept)
        other = compiled(lambda x: x + 1)
        other(torch.ones(2))
        other(torch.ones(2))
        gc.collect()
        assert not any(reference() for reference in kept)
    """
    survives(tmp_path, RESETS, script)

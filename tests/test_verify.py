"""``UNIFIED_GUARDS_VERIFY``: the first verdict is judged, on every check or on a share of them."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards import _C, verify
from unified_guards._environment import Problem, share_to_verify
from unified_guards.cli import doctor
from unified_guards.guards.ir import Access, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower, make_checker
from unified_guards.statistics import tally

from . import harness

WRONG = """
import warnings
import torch, unified_guards
from unified_guards.simplify import driver
from unified_guards.guards.ir import Test

driver.RULES["wrong on purpose"] = lambda work: ((g, None) for g in work.all(Test.EQUALS))
unified_guards.install()

def compiled(function):
    return torch.compile(function, backend="eager", dynamic=False)
"""

CHANGES = """
import torch, unified_guards

class Config: pass
class Value: pass

def getter(self):
    answers.append(answer(len(answers)))
    if answers[-1]:
        return 1
    raise AttributeError("extra")

answers = []
unified_guards.install()
run = torch.compile(lambda x, value: x * 2 if hasattr(value, "extra") else x * 3, backend="eager")
value = Value()
run(torch.ones(3), value)
Value.extra = property(getter)
"""


def output_of(tmp_path: Path, share: str, *parts: str, **switches: str) -> str:
    path = tmp_path / "program.py"
    path.write_text("\n".join(map(textwrap.dedent, parts)))
    done = harness.run_python(str(path), environ={"UNIFIED_GUARDS_VERIFY": share, **switches})
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout + done.stderr


# -- which verdicts are reported ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("witness", ["0", "1"])
def test_a_wrong_yes_is_reported_though_a_second_question_is_answered_rightly(tmp_path: Path, witness: str) -> None:
    """What is asked says yes once, and no from then on: to us first, and to torch twice."""
    script = """
    answer = lambda before: before > 0
    try:
        run(torch.ones(3), value)
    except unified_guards.GuardDisagreement as error:
        print("reported:", error)
    print(len(unified_guards.stats().disagreements), "disagreements")
    """
    found = output_of(tmp_path, "1", CHANGES, script, UNIFIED_GUARDS_WITNESS=witness)
    assert "reported: <lambda> (" in found
    assert "the native checker says True; torch's guard tree says False" in found
    assert "1 disagreements" in found


def test_nothing_is_said_where_torch_contradicts_itself(tmp_path: Path) -> None:
    script = """
    answer = lambda before: before % 2 == 1
    run(torch.ones(3), value)
    print(len(unified_guards.stats().disagreements), "disagreements")
    """
    assert "0 disagreements" in output_of(tmp_path, "1", CHANGES, script)


def test_a_wrong_no_is_asked_again(tmp_path: Path) -> None:
    """Only the first answer says no: no evaluator is wrong."""
    script = """
    answer = lambda before: before == 0
    with torch.compiler.set_stance("eager_on_recompile"):
        run(torch.ones(3), value)
    print(len(unified_guards.stats().disagreements), "disagreements")
    """
    assert "0 disagreements" in output_of(tmp_path, "1", CHANGES, script)


def first_of(*verdicts: bool) -> Any:
    """What takes the place of torch's tree: these verdicts in turn, the last one again and again."""
    left = list(verdicts)
    return lambda ask: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("verdicts", "reported"), [((False,), True), ((False, True), False), ((True,), False)], ids=str
)
def test_an_aot_entry_that_says_yes(
    verdicts: tuple[bool, ...], reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "1")
    run = unified_guards.aot_function(lambda x: x * 2, fw_compiler=lambda graph, _: graph)
    run(torch.ones(3))
    monkeypatch.setattr("unified_guards.dynamo.guard_manager._answer", first_of(*verdicts))
    if not reported:
        run(torch.ones(3))
        return
    with pytest.raises(unified_guards.GuardDisagreement, match="says True"):
        run(torch.ones(3))
    assert "says True" in tally.disagreements.pop()


# -- a share -----------------------------------------------------------------------------------------------------------


def test_a_canary_takes_torchs_verdict_and_warns_once(tmp_path: Path) -> None:
    script = """
    run = compiled(lambda x, mode: x * 2 if mode == "twice" else x * 3)
    right = torch.ones(3) * 3
    run(torch.ones(3), "twice")
    warnings.simplefilter("always")
    with warnings.catch_warnings(record=True) as caught, torch.compiler.set_stance("eager_on_recompile"):
        warnings.simplefilter("always")
        wrong = sum(not torch.equal(run(torch.ones(3), "thrice"), right) for _ in range(400))
    stats = unified_guards.stats()
    assert 0 < stats.overruled == stats.compared < 400, stats
    assert wrong == 400 - stats.overruled, (wrong, stats)
    (warning,) = caught
    assert "the native checker says True; torch's guard tree says False" in str(warning.message)
    assert len(stats.disagreements) == 1
    assert f"verify: {stats.compared:,} answers compared, {stats.overruled:,} overruled" in str(stats)
    print("overruled")
    """
    assert "overruled" in output_of(tmp_path, "0.5", WRONG, script)


def test_a_warning_that_is_an_error_does_not_end_the_call(tmp_path: Path) -> None:
    script = """
    run = compiled(lambda x, mode: x * 2 if mode == "twice" else x * 3)
    run(torch.ones(3), "twice")
    warnings.simplefilter("error")
    with torch.compiler.set_stance("eager_on_recompile"):
        got = [run(torch.ones(3), "thrice").tolist() for _ in range(60)]
    assert [3.0] * 3 in got
    """
    assert "This is a bug in unified_guards" in output_of(tmp_path, "0.5", WRONG, script)


def equals_one(oracle: Any, share: float) -> Any:
    x = guard(Test.EQUALS, (Source.frame().child(Access.LOCAL, "x"),), (1,))
    return make_checker(lower(GuardSet([(x, Provenance("dynamo"))])), oracle, share=share).callable()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_that_is_drawn(share: float) -> None:
    told: list[bool] = []
    check = equals_one(lambda shown, verdict: told.append(verdict), share)
    for _ in range(4000):
        check({"x": 1})
    # Eight times the standard deviation.
    assert abs(len(told) - 4000 * share) <= 8 * (4000 * share * (1 - share)) ** 0.5


def test_a_program_that_alternates_is_drawn_from_fairly() -> None:
    """Whatever the period of a program, each of its entries and each of its frames is compared."""
    told: dict[tuple[int, int], int] = {}
    checks = []
    for at in range(2):

        def oracle(shown: dict[str, Any], verdict: bool, at: int = at) -> None:
            told[at, shown["x"]] = told.get((at, shown["x"]), 0) + 1

        checks.append(equals_one(oracle, 0.25))
    for step in range(4000):
        checks[step % 2]({"x": step // 2 % 4})
    assert set(told) == {(at, x) for at in range(2) for x in range(4)}
    assert all(50 < count < 220 for count in told.values()), told  # 125, and eight times the deviation


@pytest.mark.parametrize(
    ("shown", "answer", "given"), [(1, False, False), (2, True, True), (1, None, True), (2, None, False)]
)
def test_an_oracle_may_answer(shown: int, answer: bool | None, given: bool) -> None:
    assert equals_one(lambda *_: answer, 1)({"x": shown}) is given


def test_a_share_of_what_aot_entry_points_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes that is overruled is no hit."""
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "0.5")
    run = unified_guards.aot_function(lambda x: x * 2, fw_compiler=lambda graph, _: graph)
    run(torch.ones(3))
    before = unified_guards.stats()
    for _ in range(200):
        run(torch.ones(3))
    assert 0 < unified_guards.stats().compared - before.compared < 200
    assert unified_guards.stats().overruled == before.overruled
    monkeypatch.setattr("unified_guards.dynamo.guard_manager._answer", first_of(False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(40):
            assert torch.equal(run(torch.ones(3)), torch.ones(3) * 2)
    assert unified_guards.stats().overruled > before.overruled
    assert caught
    del tally.disagreements[len(before.disagreements) :]


# -- what the variable says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share"), [("", 0), ("0", 0), ("0.0", 0), ("0.01", 0.01), ("1e-3", 0.001), ("1", 1), ("1.0", 1)]
)
def test_shares(text: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", text)
    assert share_to_verify() == share


@pytest.mark.parametrize("text", ["yes", "2", "-0.1", "nan", "inf", "1%"])
def test_what_is_no_share(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", text)
    monkeypatch.setattr(verify, "_warned_of", set())
    problem = share_to_verify()
    assert isinstance(problem, Problem)
    assert repr(text) in problem.what and "a number from 0 to 1" in problem.what
    assert "UNIFIED_GUARDS_VERIFY=1" in problem.remedy
    with pytest.warns(UserWarning, match="a number from 0 to 1"):
        assert verify.share() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verify.share() == 0, "said once"
    assert doctor._environment().state == "wrong"


def test_a_share_is_a_note_of_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "0.01")
    found = doctor._environment()
    assert found.state == "note"
    assert "0.01 of all checks" in (found.remedy or "")


def test_a_wrong_value_does_not_keep_torch_from_being_imported(tmp_path: Path) -> None:
    script = """
    import torch
    run = torch.compile(lambda x: x + 1, backend="eager")
    print(run(torch.ones(1)).item(), "is right")
    import unified_guards
    print(unified_guards.stats().frames_lifted, "lifted")
    """
    switches = {"UNIFIED_GUARDS": "1", "PYTHONWARNINGS": "error::UserWarning", "TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}
    found = output_of(tmp_path, "often", script, **switches)
    assert "2.0 is right" in found and "1 lifted" in found
    assert found.count("UNIFIED_GUARDS_VERIFY is 'often'") == 1


# -- the state of torch, there and back --------------------------------------------------------------------------------

THERE_AND_BACK = """
import torch, unified_guards
from torch._C._dynamo.guards import GlobalStateGuard

unified_guards.install()
graphs = []

def compiler(graph, inputs):
    graphs.append(graph)
    return graph.forward

def compilations():
    before = len(graphs)
    for _ in range(2):
        run(torch.ones(2, 2))
    return len(graphs) - before

def both(owner, name, there, back):
    return lambda: setattr(owner, name, there), lambda: setattr(owner, name, back)

backends = torch.backends
for there, back in (
    (lambda: torch.set_float32_matmul_precision("high"), lambda: torch.set_float32_matmul_precision("highest")),
    (lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")),
    both(backends.cuda.matmul, "allow_tf32", True, False),
    both(backends.cuda.matmul, "fp32_precision", "tf32", "ieee"),
    both(backends.cuda.matmul, "fp32_precision", "tf32", "none"),
    both(backends, "fp32_precision", "tf32", "ieee"),
    both(backends.cudnn.conv, "fp32_precision", "tf32", "ieee"),
    both(backends.mkldnn.matmul, "fp32_precision", "bf16", "ieee"),
):
    torch._dynamo.reset()
    run = MAKE
    assert compilations() == 1
    compiled_in = [GlobalStateGuard()]
    for switch in (there, back):
        switch()
        assert compilations() == (not any(state.check() for state in compiled_in))
        compiled_in.append(GlobalStateGuard())
    for _ in range(3):
        there()
        assert compilations() == 0
        back()
        assert compilations() == 0
print("hits again")
"""


@pytest.mark.parametrize(
    "make",
    ["torch.compile(lambda x: x @ x, backend=compiler)", "unified_guards.aot_function(lambda x: x @ x, compiler)"],
    ids=["compile", "aot"],
)
def test_a_precision_that_is_switched_there_and_back(make: str, tmp_path: Path) -> None:
    """No misses are left: what is stored as another number is the same to torch."""
    assert "hits again" in output_of(tmp_path, "1", THERE_AND_BACK.replace("MAKE", make))


def test_torch_has_the_last_word_on_its_state() -> None:
    asked: list[bool] = []

    def torchs() -> bool:
        asked.append(True)
        return torch.get_default_dtype() is torch.float16

    state, before = _C.GlobalState(torchs), torch.get_default_dtype()
    assert state.check() and not asked
    try:
        torch.set_default_dtype(torch.float64)
        assert not state.check() and not state.check()
        assert len(asked) == 2
        torch.set_default_dtype(torch.float16)
        assert state.check() and state.check()
        assert len(asked) == 3, "remembered"
    finally:
        torch.set_default_dtype(before)
    assert state.check() and len(asked) == 3


def test_a_state_that_nobody_is_asked_about() -> None:
    state = _C.GlobalState()
    with torch.no_grad():
        assert not state.check()
    assert state.check()

"""``unified_guards.config``: switches that are assigned to, patched, or come from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.exc import InternalTorchDynamoError

import unified_guards
from unified_guards import config, verify
from unified_guards.dynamo.guard_manager import entries_of

SWITCHES = {
    "verify": 0.0,
    "no_fallback": False,
    "strict": False,
    "witness": True,
    "dispatch": True,
    "profile": False,
    "log": "",
}


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in SWITCHES:
        monkeypatch.delenv(f"UNIFIED_GUARDS_{name.upper()}", raising=False)
    torch._dynamo.reset()
    yield
    for name in SWITCHES:
        delattr(config, name)
    torch._dynamo.reset()


def values() -> dict[str, Any]:
    return {name: getattr(config, name) for name in SWITCHES}


def test_defaults() -> None:
    assert values() == SWITCHES
    assert set(SWITCHES) < set(dir(config))


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("verify", "0.25", 0.25),
        ("verify", "1", 1.0),
        ("verify", "often", 0.0),
        ("no_fallback", "1", True),
        ("strict", "yes", True),
        ("strict", "0", False),
        ("witness", "0", False),
        ("witness", "", False),
        ("dispatch", "off", False),
        ("dispatch", "False", False),
        ("strict", "no", False),
        ("profile", "1", True),
        ("log", "recompiles", "recompiles"),
        ("log", "Recompiles, ", "recompiles"),
        ("log", "0", ""),
        ("log", "recompile", ""),
    ],
)
def test_the_environment_gives_the_default(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"UNIFIED_GUARDS_{name.upper()}", text)
    assert values() == SWITCHES | {name: value}
    setattr(config, name, SWITCHES[name])
    assert values() == SWITCHES, "what is assigned counts"
    delattr(config, name)
    assert values() == SWITCHES | {name: value}


def test_patch_as_a_context_manager() -> None:
    config.witness = False
    with config.patch(witness=True, verify=0.5), config.patch({"verify": 1}):
        assert (config.witness, config.verify) == (True, 1.0)
    assert (config.witness, config.verify) == (False, 0.0)
    assert not config.is_assigned("verify")


def test_patch_puts_back_after_an_exception() -> None:
    with pytest.raises(KeyError), config.patch(strict=True):
        raise KeyError
    assert values() == SWITCHES


def test_patch_as_a_decorator() -> None:
    @config.patch(profile=True)
    def seen(depth: int) -> list[bool]:
        return [config.profile, *(seen(depth - 1) if depth else ())]

    assert seen(2) == [True] * 3
    assert not config.profile


@pytest.mark.parametrize("use", [lambda: config.patch(witnes=False), lambda: config.patch({"witnes": False})])
def test_a_wrong_name_in_patch_says_which_there_are(use: Any) -> None:
    with pytest.raises(
        AttributeError, match="'witnes'; there are verify, no_fallback, strict, witness, dispatch, profile, log"
    ):
        use()


def test_a_wrong_name_is_no_switch() -> None:
    with pytest.raises(AttributeError, match="there are verify"):
        config.witnes = False  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="there are verify"):
        _ = config.witnes  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="there are verify"):
        del config.witnes  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("witness", 0, TypeError),
        ("strict", "1", TypeError),
        ("verify", "1", TypeError),
        ("verify", 1.5, ValueError),
        ("verify", -1, ValueError),
        ("log", True, TypeError),
        ("log", "recompile", ValueError),
    ],
)
def test_a_wrong_value(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"config.{name} must be"):
        setattr(config, name, value)
    with pytest.raises(error, match=f"config.{name} must be"):
        config.patch({name: value})
    assert values() == SWITCHES


def test_an_assigned_share_counts_before_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "often")
    with config.patch(verify=0.5):
        assert verify.share() == 0.5


@pytest.mark.parametrize("remember", [False, True])
def test_the_witness_is_switched_off_where_a_function_is_compiled(remember: bool) -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    run = torch.compile(double, backend="eager", dynamic=False)
    with unified_guards.installed(), config.patch(witness=remember):
        run(torch.ones(2))
    for _ in range(4):
        run(torch.ones(2))
    (entry,) = entries_of(double.__code__)
    assert (entry.checker.witness is not None) is remember
    assert entry.checker.counts[1] == 4


def test_verify_compares() -> None:
    before = unified_guards.stats().compared
    with unified_guards.installed(), config.patch(verify=1):
        run = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
        run(torch.ones(2))
    run(torch.ones(2))
    assert unified_guards.stats().compared == before + 1


def test_strict_adds_guards() -> None:
    model = torch.nn.Linear(2, 2)
    with unified_guards.installed(), config.patch(strict=True):
        run = torch.compile(lambda x: model(x) + 1, backend="eager", dynamic=False)
        run(torch.ones(2, 2))
    guards = unified_guards.explain(run).frames[0].guard_set
    assert guards is not None and "strict" in guards.counts_by_provenance()


def test_no_fallback_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    from unified_guards import pipeline
    from unified_guards.dynamo.lift import CannotLift

    def lift(*_: Any, **__: Any) -> Any:
        raise CannotLift("made to fail")

    monkeypatch.setattr(pipeline, "lift", lift)
    with (
        unified_guards.installed(),
        config.patch(no_fallback=True),
        pytest.raises(InternalTorchDynamoError, match=r"FallbackError: .*made to fail"),
    ):
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))


def test_profile_measures() -> None:
    with unified_guards.installed(), config.patch(profile=True):
        run = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
        run(torch.ones(2))
    run(torch.ones(2))
    costs = unified_guards.explain(run).frames[0].costs
    assert costs is not None and costs.checks == 1

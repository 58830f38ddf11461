"""Random signatures and random calls: all is as it is with torch's wrapper alone.

Each example makes one program, compiles it twice, once with and once without the dispatcher, and plays the same calls
to both: results, the type and the text of what is raised, and the number of compilations are the same.
"""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch._dynamo

import unified_guards

from ..harness import assert_same, ones
from .watching import dispatcher_of

EXAMPLES = 60
CALLS = 12
NAMES = ["a", "b", "c", "d", "e", "f"]


class Parameter(NamedTuple):
    name: str
    kind: str  # "only", "both", "rest", "key", "named"
    default: str | None = None

    def __str__(self) -> str:
        stars = {"rest": "*", "named": "**"}.get(self.kind, "")
        return f"{stars}{self.name}" + ("" if self.default is None else f"={self.default}")


def parameters(rng: random.Random) -> list[Parameter]:
    names = iter(NAMES)
    made: list[Parameter] = []
    has_default = False
    for kind in ("only", "both"):
        for _ in range(rng.randint(0, 2)):
            has_default = has_default or rng.random() < 0.4
            made.append(Parameter(next(names), kind, default(rng) if has_default else None))
    if rng.random() < 0.4:
        made.append(Parameter("rest", "rest"))
    for _ in range(rng.randint(0, 2)):
        made.append(Parameter(next(names), "key", default(rng) if rng.random() < 0.5 else None))
    if rng.random() < 0.4:
        made.append(Parameter("named", "named"))
    return made


def default(rng: random.Random) -> str:
    return rng.choice(["2", "None", "(1, 2)", "DEFAULT", "'text'"])


def signature(made: list[Parameter], receiver: str | None) -> str:
    """The parameters as Python writes them."""
    parts = [] if receiver is None else [receiver]
    for at, each in enumerate(made):
        follows = made[at + 1].kind if at + 1 < len(made) else None
        before = {each.kind for each in made[:at]}
        if each.kind == "key" and not before & {"rest", "key"}:
            parts.append("*")
        parts.append(str(each))
        if each.kind == "only" and follows != "only":
            parts.append("/")
    return ", ".join(parts)


def body(made: list[Parameter], receiver: str | None, cell: str | None) -> str:
    """Adds up what is a tensor or a number, and returns the rest as it is."""
    plain = [each.name for each in made if each.kind not in ("rest", "named")]
    sources = [f"[{', '.join(plain)}]"]
    sources += ["list(rest)"] if any(each.kind == "rest" for each in made) else []
    sources += ["list(named.values())"] if any(each.kind == "named" for each in made) else []
    sources += [f"[{receiver}.weight]"] if receiver else []
    sources += [f"[{cell}]"] if cell else []
    given = [each.name for each in made if each.kind != "named"]
    keys = "tuple(named)" if any(each.kind == "named" for each in made) else "()"
    return f"""
    total = START + 1
    for item in {" + ".join(sources)}:
        total = total + (item if isinstance(item, (int, torch.Tensor)) else 3)
    return total, ({"".join(f"{name}, " for name in given)}), {keys}, {{"first": {given[0] if given else None}}}"""


class Owner:
    def __init__(self) -> None:
        self.weight = ones() * 7


class Program(NamedTuple):
    parameters: list[Parameter]
    text: str
    call: Callable[[dict[str, Any]], Callable[..., Any]]  # what is compiled, of the namespace that the text makes


def program(rng: random.Random) -> Program:
    made = parameters(rng)
    kind = rng.choice(["function", "method", "bound", "cell", "partial"])
    receiver = "self" if kind in ("method", "bound") else None
    cell = "cell" if kind == "cell" else None
    named = {each.name for each in made}
    if receiver:
        # A receiver stands in front of what is positional only.
        text = f"def function({signature(made, receiver)}):{body(made, receiver, cell)}"
    elif cell:
        text = f"def function({signature(made, None)}):{body(made, None, cell)}"
        inner = "\n".join("    " + line for line in text.splitlines())
        text = f"def outer(cell):\n{inner}\n    return function\nfunction = outer(CELL)"
    else:
        text = f"def function({signature(made, None)}):{body(made, None, None)}"

    def call(space: dict[str, Any]) -> Callable[..., Any]:
        function = space["function"]
        if kind == "method":
            return types.MethodType(function, space["OWNER"])
        if kind == "bound":
            return functools.partial(function, space["OWNER"])
        if kind == "partial":
            return functools.partial(function, **({"c": 5} if "c" in named else {}))
        return function

    return Program(made, text, call)


VALUES: list[Callable[[], Any]] = [
    ones,
    lambda: ones(2, 3),
    lambda: ones().double(),
    lambda: 2,
    lambda: 3,
    lambda: None,
]


Arguments = tuple[list[int], dict[str, int]]  # which of VALUES are given, by position and by name


def arguments(rng: random.Random, made: list[Parameter]) -> Arguments:
    """Mostly what fits: one in five calls has something too much, or lacks something."""
    positional: list[int] = []
    named: dict[str, int] = {}
    for each in made:
        if each.default is not None and rng.random() < 0.5:
            continue
        by_position = each.kind == "only" or (each.kind == "both" and not named and rng.random() < 0.6)
        value = rng.randrange(len(VALUES))
        if each.kind == "rest":
            positional += [rng.randrange(len(VALUES)) for _ in range(rng.randint(0, 2))] if not named else []
        elif each.kind == "named":
            named |= dict.fromkeys(rng.sample(["other", "self", "a"], rng.randint(0, 2)), value)
        elif by_position:
            positional.append(value)
        else:
            named[each.name] = value
    wrong = rng.random()
    if wrong < 0.1:
        positional.append(0)
    elif wrong < 0.15:
        named["unknown"] = 0
    elif wrong < 0.2 and positional:
        positional.pop()
    return positional, named


def plays(made: Program, calls: list[Arguments]) -> tuple[list[Any], int, int]:
    """What each call gives or raises, the number of compilations, and of short ways."""
    space: dict[str, Any] = {
        "torch": torch, "START": ones(), "DEFAULT": ones() * 5, "CELL": ones() * 11, "OWNER": Owner(),
    }  # fmt: skip
    exec(compile(made.text, __file__, "exec"), space)
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    target = made.call(space)
    compiled = torch.compile(target, backend=backend)
    seen: list[Any] = []
    for positional, named in calls:
        args, kwargs = [VALUES[at]() for at in positional], {name: VALUES[at]() for name, at in named.items()}
        try:
            seen.append(compiled(*args, **kwargs))
        except TypeError as error:
            seen.append((type(error), str(error)))
    return seen, graphs, dispatcher_of(compiled).counts[0] if "_unified_guards_dispatcher" in vars(compiled) else 0


def agree(seed: int) -> int:
    """How many short ways were taken."""
    rng = random.Random(seed)
    made = program(rng)
    different = [arguments(rng, made.parameters) for _ in range(CALLS // 3)]
    calls = [rng.choice(different) for _ in range(CALLS)]
    with unified_guards.config.patch(dispatch=False):
        want, graphs, none = plays(made, calls)
    torch._dynamo.reset()
    got, compiled, shorts = plays(made, calls)
    torch._dynamo.reset()
    assert none == 0
    for left, right in zip(got, want, strict=True):
        assert_same(left, right)
    assert compiled == graphs, made.text
    return shorts


@pytest.mark.parametrize("part", range(6))
def test_random_signatures(part: int) -> None:
    taken = [agree(seed) for seed in range(part * EXAMPLES // 6, (part + 1) * EXAMPLES // 6)]
    assert sum(taken) > 0

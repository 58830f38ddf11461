"""What a hostile program is written with: :func:`program`, :func:`direct`, and the :class:`Run` that each is given.

A program compiles something, calls it until its guards are believed, changes something behind its back, and calls it
again. What each call gave is written down beside what eager gives; ``judge.py`` compares that with plain torch's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import unified_guards

from .programs import KINDS

VARIANTS = ("torch", "install", "verify", "no_witness")
VERIFIED = ("torch", "verify")
PLACES = ("argument", "module", "object", "list", "dict", "cell", "global")
WARM = 6


@dataclasses.dataclass(frozen=True)
class Program:
    name: str
    body: Callable[..., None]
    arguments: dict[str, Any]
    variants: tuple[str, ...]

    def run(self, run: Run) -> None:
        self.body(run, **self.arguments)


_programs: dict[str, dict[str, Program]] = {}


def _register(body: Callable[..., None], name: str, arguments: dict[str, Any], variants: tuple[str, ...]) -> None:
    found = _programs.setdefault(body.__module__.rpartition(".")[2], {})
    assert name not in found, name
    found[name] = Program(name, body, arguments, variants)


def program(
    *, aot: bool = False, variants: tuple[str, ...] = VARIANTS, **choices: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A program over compiled functions. ``place=PLACES`` makes one for each place, which it gets as ``place``."""
    variants = (*variants, "aot") if aot else variants

    def registered(body: Callable[..., None]) -> Callable[..., None]:
        if not choices:
            _register(body, body.__name__, {}, variants)
        for key, values in choices.items():
            for value in values:
                here = VARIANTS if key == "place" and value != "argument" else variants
                _register(body, f"{body.__name__}[{value}]", {key: value}, here)
        return body

    return registered


def direct(body: Callable[..., None]) -> Callable[..., None]:
    """A program on a checker of its own, whose verdicts it expects itself."""
    _register(body, body.__name__, {}, ("direct",))
    return body


def programs_of(kind: str) -> dict[str, Program]:
    importlib.import_module(f"{__package__}.programs.{kind}")
    return _programs[kind]


def all_programs() -> Iterator[tuple[str, Program]]:
    for kind in KINDS:
        for found in programs_of(kind).values():
            yield kind, found


def _shown(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        try:
            content = value.detach().tolist()
        except (RuntimeError, NotImplementedError):
            content = "not readable"
        return [str(value.dtype), list(value.shape), content, value.requires_grad]
    if isinstance(value, (tuple, list)):
        return [_shown(item) for item in value]
    return repr(value)


def outcome(call: Callable[[], Any]) -> Any:
    """The value of a call in words that two processes can compare, or what it raised."""
    try:
        value = call()
    except Exception as error:  # an outcome too: both processes must raise the same
        found = error.__cause__ or error
        return f"raises {type(found).__name__}", str(error)[:300]
    return _shown(value), ""


class Run:
    """One program in one variant: what it compiles and what it saw."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.steps: list[dict[str, Any]] = []
        self.graphs = self.ran = 0
        warnings.simplefilter("ignore")

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1

        def compiled(*arguments: Any) -> Any:
            self.ran += 1
            return graph.forward(*arguments)

        return compiled

    def compile(self, function: Any, **options: Any) -> Any:
        if self.variant == "aot":
            return unified_guards.aot_function(function, lambda graph, inputs: graph.forward)
        return torch.compile(function, backend=self._backend, **({"dynamic": False} | options))

    def warm(self, call: Callable[[], Any], times: int = WARM) -> None:
        for _ in range(times):
            call()

    def spring(self, call: Callable[[], Any], name: str = "") -> None:
        """A call in which code of the user's changes something: what it returns may be from before or after. In the
        middle of a compilation it makes torch refuse what it has just compiled; plain torch has to do so, too."""
        value, text = outcome(call)
        found = value if str(value).startswith("raises") else "returns"
        self.steps.append(
            {"name": name, "value": found, "text": text, "eager": "returns", "missed": 0, "graphs": 0, "ran": 0}
        )

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """For threads: how often torch compiles while several look up at once is chance, under plain torch too."""
        graphs = self.graphs
        yield
        self.graphs = graphs

    def step(self, call: Callable[[], Any], eager: Callable[[], Any], name: str = "") -> None:
        """Writes down what the compiled function gives now, and what it should."""
        graphs, ran = self.graphs, self.ran
        value, text = outcome(call)
        self.steps.append(
            {"name": name, "value": value, "text": text, "eager": outcome(eager)[0]}
            | {"missed": self.graphs - graphs, "graphs": self.graphs, "ran": self.ran - ran}
        )

    def expect(self, made: Any, shown: dict[str, Any], right: bool, name: str = "") -> None:
        """Both tiers of a checker; a miss is always allowed."""
        for tier, ask in (("exact", made.exact), ("check", made.check)):
            value, text = outcome(lambda ask=ask: ask(shown))
            self.steps.append({"name": f"{name} {tier}", "verdict": value == "True", "right": right, "text": text})

    def agree(self, made: Any, shown: dict[str, Any], name: str = "") -> None:
        """The same where the exact tier is known to be right."""
        self.expect(made, shown, outcome(lambda: made.exact(shown))[0] == "True", name)

    def spot(self, place: str, use: Callable[[Any, Any], Any], value: Any) -> Spot:
        return Spot(self, place, use, value)


class Holder:
    pass


class HoldingModule(nn.Module):
    def __init__(self, use: Callable[[Any, Any], Any], value: Any) -> None:
        super().__init__()
        self.use, self.value = use, value

    def forward(self, x: Any) -> Any:
        return self.use(x, self.value)


def _in_cell(use: Callable[[Any, Any], Any], value: Any) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return use(x, value)

    return function


class Spot:
    """A value in one of :data:`PLACES`, and a function that finds it there and uses it; compiled and warm."""

    def __init__(self, run: Run, place: str, use: Callable[[Any, Any], Any], value: Any) -> None:
        self.run, self.x, self.extra = run, torch.zeros(2), ()
        if place == "argument":
            self.function, self.extra = (lambda x, value: use(x, value)), (value,)
        elif place == "module":
            self.function = HoldingModule(use, value)
        elif place == "object":
            holder = Holder()
            holder.value = value
            self.function, self.extra = (lambda x, holder: use(x, holder.value)), (holder,)
        elif place == "list":
            self.function, self.extra = (lambda x, values: use(x, values[1])), ([0, value],)
        elif place == "dict":
            self.function, self.extra = (lambda x, values: use(x, values["k"])), ({"k": value, "other": 0},)
        elif place == "cell":
            self.function = _in_cell(use, value)
        else:
            names = {"use": use, "VALUE": value}
            exec("def function(x):\n    return use(x, VALUE)", names)
            self.function = names["function"]
        self.compiled = run.compile(self.function)
        run.warm(self.call)

    def call(self) -> Any:
        return self.compiled(self.x, *self.extra)

    def eager(self) -> Any:
        return self.function(self.x, *self.extra)

    def step(self, name: str = "") -> None:
        self.run.step(self.call, self.eager, name)


def recorded(made: Any, shown: dict[str, Any], times: int = 4) -> Any:
    for _ in range(times):
        assert made.check(shown)
    return made

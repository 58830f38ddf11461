"""Random functions on random inputs: every call gives what eager gives; every recompile has a guard that explains it.

A function is drawn as source text, and so are the inputs of its calls; what fails is printed as a program to run.
"""

from __future__ import annotations

import itertools
import os
import textwrap
from typing import Any

import pytest
import torch
from functorch.compile import nop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import unified_guards
from unified_guards.guards import semantics

#: More for a longer search, on other examples: UNIFIED_GUARDS_EXAMPLES=2000 UNIFIED_GUARDS_RANDOM=1.
EXAMPLES = int(os.environ.get("UNIFIED_GUARDS_EXAMPLES", "100"))
DETERMINISTIC = os.environ.get("UNIFIED_GUARDS_RANDOM", "0") == "0"

# -- functions ---------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "xs[0]", "t"]
CONDITIONS = [
    "{x}.shape[0] > 2 if {x}.dim() else False",
    "{x}.numel() > 3",
    "{x}.dim() == 2",
    "{x}.dim() == {y}.dim() and {x}.shape == {y}.shape",
    "{x}.dtype == torch.float32",
    "{x}.dtype.is_floating_point",
    "{x}.dim() > 0 and {x}.stride(0) == 1",
    "{x}.is_contiguous()",
    "{x}.requires_grad",
    "{x} is {y}",
    "a is b",
    "torch.is_grad_enabled()",
    "n is None",
    "isinstance(n, str)",
    "type(n) is int",
    "isinstance(n, (int, float)) and n > 2",
    "len(xs) > 1",
    "K > 1",
    "{x}.storage_offset() > 0",
]
STATEMENTS = [
    "t = {x} + {y}",
    "t = {x} * {y}",
    "t = {x} - 1",
    "t = {x} * 2",
    "t = {x} * K",
    "t = {x} * (n if isinstance(n, (int, float)) else 1)",
    "t = {x}.t() if {x}.dim() <= 2 else {x}",
    "t = {x}[1:] if {x}.dim() else {x}",
    "t = {x}.sum(0) if {x}.dim() else {x}",
    "t = {x}.sum()",
    "t = {x}.reshape(-1)",
    "t = {x}.relu()",
    "t = {x}.detach()",
    "t = {x}.clone()",
    "t = {x}.to(torch.float64)",
    "t = torch.cat([{x}.reshape(-1), {y}.reshape(-1)])",
    "t = sum(xs)",
    "t = {x} * {x}.shape[0] if {x}.dim() else {x}",
    "{x}.add_(1)",
    "{x}.mul_({y})",
    "{x}[:1].add_(1) if {x}.dim() else None",
    "{x}.zero_()",
]
RESULTS = [
    "t",
    "(t, {x})",
    "[t, t]",
    "{{'r': t, 'n': n}}",
    "t, [{x} + {y}], len(xs)",
    "(t, {x}.shape, {x}.dtype)",
    "{x}",
]


@st.composite
def _filled(draw: Any, templates: list[str]) -> str:
    template = draw(st.sampled_from(templates))
    return str(template.format(x=draw(st.sampled_from(NAMES)), y=draw(st.sampled_from(NAMES))))


@st.composite
def functions(draw: Any) -> str:
    """The source of a function ``f(a, b, n, xs)`` that also reads a global ``K``."""
    lines = ["def f(a, b, n, xs):", "    t = a * 1"]
    for _ in range(draw(st.integers(1, 4))):
        statement = draw(_filled(STATEMENTS))
        if draw(st.booleans()):
            lines.append(f"    if {draw(_filled(CONDITIONS))}:\n        {statement}")
            lines.append(f"    else:\n        {draw(_filled(STATEMENTS))}")
        else:
            lines.append(f"    {statement}")
    return "\n".join([*lines, f"    return {draw(_filled(RESULTS))}"])


# -- calls -------------------------------------------------------------------------------------------------------------

SHAPES = [(3,), (3,), (4,), (0,), (1,), (5,), (), (2, 3), (3, 2), (3, 3), (1, 3), (0, 3)]
DTYPES = ["float32", "float32", "float64", "int64"]
SCALARS = ["2", "3", "5", "1", "0", "2.0", "0.5", "-0.0", "True", "False", "None", "'text'", "'other'"]


@st.composite
def tensors(draw: Any) -> str:
    """An expression for a tensor; ``base`` is a vector of 12 that the tensors of a call may share."""
    kind = draw(st.sampled_from(["fresh", "fresh", "fresh", "grad", "transposed", "slice", "strided", "parameter"]))
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    fresh = f"fill({shape}, torch.{dtype})"
    if kind == "grad" and dtype != "int64":
        return f"{fresh}.requires_grad_()"
    if kind == "parameter" and dtype != "int64":
        return f"torch.nn.Parameter({fresh})"
    if kind == "transposed":
        return f"fill({shape[::-1]}, torch.{dtype}).t()"
    if kind == "slice":
        start = draw(st.integers(0, 6))
        return f"base[{start}:{start + draw(st.sampled_from([3, 3, 4, 1]))}]"
    if kind == "strided":
        return f"base[{draw(st.integers(0, 2))}::2][:3]"
    return fresh


@st.composite
def calls(draw: Any) -> str:
    """The source that makes ``args``, ``K`` and ``grad``."""
    first = draw(tensors())
    second = draw(st.sampled_from(["a", None, None, None])) or draw(tensors())
    others = [draw(st.sampled_from(["a", "b", None, None])) or draw(tensors()) for _ in range(draw(st.integers(1, 2)))]
    return "\n".join(
        [
            "base = fill((12,), torch.float32)",
            f"a = {first}",
            f"b = {second}",
            f"args = (a, b, {draw(st.sampled_from(SCALARS))}, [{', '.join(others)}])",
            f"K = {draw(st.sampled_from(['2', '2', '2', '1', '2.0']))}",
            f"grad = {draw(st.sampled_from([True, True, True, False]))}",
        ]
    )


def fill(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Small whole numbers: sums and products of them are exact in every order."""
    numel = torch.Size(shape).numel()
    return (torch.arange(numel) % 3 - 1).to(dtype).reshape(shape)


# -- one call ----------------------------------------------------------------------------------------------------------


class Call:
    """One call, on inputs of its own, and everything that can be seen of what it did."""

    def __init__(self, function: Any, scope: dict[str, Any], source: str) -> None:
        names: dict[str, Any] = {"torch": torch, "fill": fill}
        exec(source, names)
        self.args, self.base = names["args"], names["base"]
        scope["K"] = names["K"]
        with torch.set_grad_enabled(names["grad"]):
            self.outcome = self._run(function)

    def _run(self, function: Any) -> Any:
        inputs = [leaf for leaf in pytree.tree_leaves(self.args) if isinstance(leaf, torch.Tensor)]
        versions = [leaf.detach().clone() for leaf in inputs]
        try:
            result = function(*self.args)
        except Exception as error:  # an outcome too: ours must raise what eager raises
            return type(error).__name__, versions and None
        leaves = pytree.tree_leaves(result)
        outputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        wanted = [leaf for leaf in outputs if leaf.requires_grad and leaf.is_floating_point()]
        failed = None
        if wanted:
            try:
                sum(leaf.sum() * (at + 1) for at, leaf in enumerate(wanted)).backward()
            except RuntimeError:
                failed = "backward"
        return {
            "structure": str(pytree.tree_structure(result)),
            "result": leaves,
            "types": [type(leaf).__name__ for leaf in leaves],
            "requires grad": [leaf.requires_grad for leaf in outputs],
            "strides": [leaf.stride() for leaf in outputs],
            "is an input": [[leaf is one for one in inputs] for leaf in outputs],
            "shares memory": [[_shares(leaf, one) for one in inputs] for leaf in outputs],
            "shares memory among outputs": [_shares(one, other) for one, other in itertools.pairwise(outputs)],
            "gradients": [one.grad for one in inputs if one.is_leaf],
            "inputs": inputs,
            "base": self.base,
            "failed": failed,
        }


def _shares(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def make(source: str) -> tuple[Any, dict[str, Any]]:
    scope: dict[str, Any] = {"torch": torch, "__name__": "generated", "K": 2}
    exec(compile(source, "<generated>", "exec"), scope)
    return scope["f"], scope


# -- what must hold ----------------------------------------------------------------------------------------------------


def assert_same(found: Any, expected: Any) -> None:
    """Errors by type; everything else by value.

    What eager refuses may succeed: AOTAutograd's graphs do not repeat each of its checks (``int_tensor.mul_(0.5)``).
    """
    if isinstance(expected, tuple):
        assert found == expected or not isinstance(found, tuple)
        return
    assert not isinstance(found, tuple), f"eager gives a result, ours raises {found[0]}"
    for key, value in expected.items():
        if key in ("result", "gradients", "inputs", "base"):
            _assert_equal(key, found[key], value)
        else:
            assert found[key] == value, (key, found[key], value)


def _assert_equal(key: str, found: Any, expected: Any) -> None:
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        if isinstance(other, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{key}: {m}")
        else:
            assert repr(one) == repr(other), (key, one, other)


def texts(compiled: Any) -> str:
    return "\n".join(str(entry.checked) for entry in compiled._entries())


def assert_reference_agrees(compiled: Any, source: str, scope: dict[str, Any]) -> None:
    """The slow evaluator finds that a version fits exactly when the native lookup does."""
    names: dict[str, Any] = {"torch": torch, "fill": fill}
    exec(source, names)
    scope["K"] = names["K"]
    frame = {"args": names["args"], "kwargs": {}, "target": scope["f"]}
    with torch.set_grad_enabled(names["grad"]):
        fits = [entry for entry in compiled._entries() if semantics.evaluate(entry.guard_set, frame)]
        assert (compiled._find(names["args"], {}) is not None) == bool(fits)
        assert not fits or compiled._entries()[0] in fits


def check_call(compiled: Any, eager: Any, scope: dict[str, Any], source: str) -> None:
    """One call: like eager, and the counts and reasons say what happened."""
    before, known = compiled.cache_info(), texts(compiled)
    assert_reference_agrees(compiled, source, scope)
    expected = Call(eager, scope, source).outcome
    assert_same(Call(compiled, scope, source).outcome, expected)
    after = compiled.cache_info()
    ran_eagerly = sum(after.eager.values()) - sum(before.eager.values())
    assert after.misses - before.misses in (0, 1)
    assert after.hits - before.hits == 1 or ran_eagerly == 1
    assert len(compiled.recompiles()) == after.recompiles
    for reason in (reason for each in compiled.recompiles()[before.recompiles :] for reason in each.reasons):
        text = reason.partition("  # ")[0].partition(" (found ")[0]
        assert text
        assert text in known or text.endswith("is missing"), reason
    if after.misses == before.misses:
        assert after.recompiles == before.recompiles
    assert_same(Call(compiled, scope, source).outcome, expected)
    again = compiled.cache_info()
    assert again.misses == after.misses or sum(again.eager.values()) > sum(after.eager.values())
    assert again.recompiles == after.recompiles


def reproducer(function: str, inputs: list[str], dynamic: Any) -> str:
    """A program that makes the calls one after the other and prints what ours and eager give."""
    body = "\n".join(
        f"{source}\nargs_, args = args, None\n"
        f"with torch.set_grad_enabled(grad): print('eager', f(*copy.deepcopy(args_)), 'ours', c(*args_))"
        for source in inputs
    )
    return (
        "import copy, torch, unified_guards\nfrom functorch.compile import nop\n"
        "def fill(shape, dtype): return (torch.arange(torch.Size(shape).numel()) % 3 - 1).to(dtype).reshape(shape)\n"
        f"K = 2\n{function}\nc = unified_guards.aot_function(f, nop, dynamic={dynamic}, recompile_limit=100)\n{body}\n"
    )


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=EXAMPLES,
    derandomize=DETERMINISTIC,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(functions(), st.lists(calls(), min_size=1, max_size=5), st.sampled_from([False, True, None]))
def test_random_functions_give_what_eager_gives(function: str, inputs: list[str], dynamic: bool | None) -> None:
    eager, scope = make(function)
    compiled = unified_guards.aot_function(eager, nop, dynamic=dynamic, recompile_limit=100)
    done: list[str] = []
    try:
        for source in inputs:
            done.append(source)
            check_call(compiled, eager, scope, source)
    except BaseException as error:  # raised again, with the program that repeats it
        program = textwrap.indent(reproducer(function, done, dynamic), "    ")
        raise AssertionError(f"{type(error).__name__}: {error}\nThe program:\n{program}") from error

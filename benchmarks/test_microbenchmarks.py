"""Each guard kind on the same frame: torch's tree against the native program. Run: `pytest benchmarks`.

Nothing asserts a time. What is asserted is that the frame has the guards that the kind is about, that it is accepted,
and that a changed one is refused, by both backends alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._dynamo.testing

from benchmarks.kinds import KINDS, Kind
from unified_guards.bench.probe import Build, BuildProbe, leaf_guards, tree_parts


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(threads)


def _installed(backend: str) -> Any:
    if backend == "torch":
        return nullcontext()
    return pytest.importorskip("unified_guards", exc_type=ImportError).installed()


def _parts(root: Any) -> Counter[str]:
    return Counter(type(part).__name__ for part in tree_parts(root))


def _compile(kind: Kind, backend: str) -> tuple[Build, Counter[str]]:
    with _installed(backend), BuildProbe(inspect=_parts) as probe:
        torch.compile(kind.function, backend="eager", dynamic=kind.dynamic)(*kind.arguments)
    (build,) = probe.builds
    return build, probe.inspected[0]


@pytest.mark.parametrize("backend", ["torch", "unified"])
@pytest.mark.parametrize("name", KINDS)
def test_check(name: str, backend: str, benchmark: Any) -> None:
    kind = KINDS[name]()
    build, parts = _compile(kind, backend)
    found = sum(count for part, count in parts.items() if part.startswith(kind.part))
    assert found >= kind.count, f"{name} is about {kind.part}, but its frame has {dict(parts)}"
    # Natively checked frames have a stub for a root; a fallback would time torch against itself.
    assert (leaf_guards(build.wrapper.root) < build.leaves) == (backend == "unified")
    check, f_locals = build.wrapper.root.check, build.f_locals
    assert check(f_locals)
    benchmark.group = name
    benchmark.extra_info["leaf guards"] = build.leaves
    assert benchmark(check, f_locals)
    undo = kind.change(f_locals)
    try:
        assert not check(f_locals)
    finally:
        if undo is not None:
            undo()

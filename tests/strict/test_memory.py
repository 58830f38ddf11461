"""Memory that inputs share, with ``install(strict=True)``: symbolic shapes, and the caches of torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.dynamo import compat

from ..harness import assert_same, run_python

Given = Callable[[], list[torch.Tensor]]


def put(whole: torch.Tensor, row: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    row.copy_(given)
    return whole.sum(1)


def two(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a.add_(1)
    return a * 2 + b


def three(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    b.mul_(2)
    return a + b + c


def offset(x: torch.Tensor) -> torch.Tensor:
    return x * x.storage_offset()


def strided(x: torch.Tensor) -> torch.Tensor:
    return x.as_strided((2,), (1,), 1) + 1


def rows(at: int, length: int = 6) -> list[torch.Tensor]:
    whole = torch.zeros(length, 4)
    return [whole, whole[at : at + 3], torch.ones(3, 4)]


def spans(*each: tuple[int, int, int], length: int = 40) -> list[torch.Tensor]:
    """Views of one tensor: where each begins, how long it is and how far its elements are apart."""
    base = torch.arange(float(length))
    return [base[start : start + count * step : step] for start, count, step in each]


def apart(*lengths: int) -> list[torch.Tensor]:
    return [torch.arange(float(length)) for length in lengths]


def of(make: Callable[..., list[torch.Tensor]], *args: Any, **kwargs: Any) -> Given:
    return functools.partial(make, *args, **kwargs)


SEQUENCES: dict[str, tuple[Callable[..., torch.Tensor], list[Given]]] = {
    "a row of a buffer": (put, [of(rows, 0), of(rows, 2), of(rows, 1), of(rows, 3), of(rows, 2, 8)]),
    "two views": (
        two,
        [
            of(spans, (0, 4, 1), (0, 4, 1)),
            of(spans, (0, 4, 1), (2, 4, 1)),
            of(spans, (0, 4, 1), (4, 4, 1)),
            of(spans, (2, 4, 1), (0, 4, 1)),
            of(apart, 4, 4),
            of(spans, (1, 4, 2), (2, 4, 2)),
            of(spans, (1, 5, 2), (1, 5, 1)),
            of(spans, (0, 6, 1), (3, 6, 1), length=50),
        ],
    ),
    "three views": (
        three,
        [
            of(spans, (0, 4, 1), (2, 4, 1), (8, 4, 1)),
            of(spans, (0, 4, 1), (4, 4, 1), (6, 4, 1)),
            of(spans, (8, 4, 1), (4, 4, 1), (0, 4, 1)),
            of(spans, (3, 4, 1), (4, 4, 1), (5, 4, 1)),
        ],
    ),
    "an offset that is read": (offset, [of(spans, (at, 3, 1)) for at in (1, 2, 5)]),
    "as_strided": (strided, [of(spans, (at, 3, 1)) for at in (1, 2, 5)]),
}


@pytest.fixture(params=SEQUENCES)
def sequence(request: pytest.FixtureRequest) -> tuple[Callable[..., torch.Tensor], list[Given]]:
    return SEQUENCES[request.param]


def assert_right(call: Callable[..., Any], function: Callable[..., Any], given: Given) -> None:
    """The result, and what is left in the inputs."""
    ours, eagers = given(), given()
    assert_same(call(*ours), function(*eagers))
    assert_same(ours, eagers)


@pytest.mark.parametrize("verify", ["", "1"], ids=["", "verified"])
@pytest.mark.parametrize("dynamic", [True, None, False], ids=["dynamic", "automatic", "static"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_shared_inputs_give_eagers_results(
    sequence: tuple[Callable[..., torch.Tensor], list[Given]],
    backend: str,
    dynamic: bool | None,
    verify: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forth, back and forth again: an entry that was made for others must not be used."""
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", verify)
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "1")
    function, each = sequence
    with unified_guards.installed(strict=True), torch._dynamo.config.patch(recompile_limit=32):
        call = torch.compile(function, backend=backend, dynamic=dynamic)
        for given in (*each, *reversed(each), *each):
            assert_right(call, function, given)
        before = len(unified_guards.explain(function).frames)
        for given in each:
            assert_right(call, function, given)
        assert len(unified_guards.explain(function).frames) == before, "it is compiled again and again"


def test_plain_torch_writes_to_the_wrong_row() -> None:
    """An honest demonstration: torch alone."""
    call = torch.compile(put, backend="aot_eager", dynamic=True)
    assert_right(call, put, of(rows, 0))
    with pytest.raises(AssertionError):
        assert_right(call, put, of(rows, 2))


def test_offsets_that_are_symbols_are_left_to_torch() -> None:
    with unified_guards.installed(strict=True):
        call = torch.compile(put, backend="aot_eager", dynamic=True)
        for at in (0, 1, 2, 3):
            assert_right(call, put, of(rows, at))
        assert len(unified_guards.explain(put).frames) <= 3


IN_A_PROCESS = """
import json, sys
import torch, unified_guards
from torch._dynamo.utils import counters
from tests.strict.test_memory import SEQUENCES, assert_right
torch.set_num_threads(1)
unified_guards.install(strict=True)
function, each = SEQUENCES[sys.argv[1]]
with torch._dynamo.config.patch(recompile_limit=32):
    call = torch.compile(function, dynamic=json.loads(sys.argv[2]))
    for given in each[:3]:
        assert_right(call, function, given)
print(json.dumps(counters["aot_autograd"]))
"""


def with_caches(directory: Path, name: str, dynamic: bool) -> dict[str, int]:
    environment = {
        "TORCHINDUCTOR_CACHE_DIR": str(directory),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "0",
        "UNIFIED_GUARDS_NO_FALLBACK": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = run_python("-c", IN_A_PROCESS, name, json.dumps(dynamic), environ=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("name", "dynamic"), [("a row of a buffer", False), ("two views", True)])
def test_no_cache_undoes_a_strict_miss(name: str, dynamic: bool, tmp_path: Path) -> None:
    """In one process, and from a second one with the same cache, which the cache does serve."""
    first = with_caches(tmp_path, name, dynamic)
    again = with_caches(tmp_path, name, dynamic)
    assert first.get("autograd_cache_saved", 0) >= 2
    assert again.get("autograd_cache_hit", 0) >= 2


def test_only_shared_memory_changes_the_key_of_a_cache() -> None:
    tags: list[str] = []

    def backend(graph_module: Any, inputs: Any) -> Any:
        tags.append(torch.compiler.config.cache_key_tag)
        return graph_module

    with torch.compiler.config.patch(cache_key_tag="mine"), unified_guards.installed(strict=True):
        for given in (of(apart, 4, 4), of(spans, (0, 4, 1), (2, 4, 1)), of(spans, (1, 4, 1), (3, 4, 1))):
            torch._dynamo.reset()
            torch.compile(two, backend=backend, dynamic=False)(*given())
        kept = torch.compiler.config.cache_key_tag
    apart_tag, *shared = tags
    assert apart_tag == kept == "mine"
    assert len(set(shared)) == 2
    assert all(tag.startswith("mine:unified_guards:") for tag in shared)


def test_without_a_tag_the_cache_of_aot_autograd_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._functorch import config

    class Nothing:
        pass

    monkeypatch.setattr(torch.compiler, "config", Nothing())
    before = config.enable_autograd_cache
    with compat.caches_apart("what"):
        assert not config.enable_autograd_cache
    assert config.enable_autograd_cache == before

"""What tests compile, run and compare with: compiled functions that count, fresh interpreters, threads."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import math
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.utils._pytree as pytree

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


@dataclasses.dataclass(frozen=True)
class Environment:
    """How a script that is run as its own program gets the guards under test."""

    name: str
    prelude: str = ""
    epilogue: str = ""

    def run(self, path: Path, script: str, *, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Runs ``script``, in which PRELUDE and EPILOGUE stand for the environment's own lines."""
        text = textwrap.dedent(script).replace("PRELUDE", self.prelude or "pass")
        path.write_text(text.replace("EPILOGUE", self.epilogue or "pass"))
        return run_python(str(path), timeout=timeout)


def run_python(
    *arguments: str, timeout: float = 240, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter away from the checkout, with none of the UNIFIED_GUARDS switches of this one."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("UNIFIED_GUARDS")}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=tempfile.gettempdir(),
        env=variables | {"OMP_NUM_THREADS": "1"} | (environ or {}),
        check=False,
    )


def guards_without_shortcuts() -> contextlib.AbstractContextManager[Any]:
    """Torch 2.11 skips guards that later versions evaluate (torch-guards.md, section 7); here it must not."""
    shortcuts = (
        "skip_guards_on_constant_func_defaults",
        "skip_tensor_guards_with_matching_dict_tags",
        "use_recursive_dict_tags_for_guards",
    )
    config = torch._dynamo.config
    return config.patch({name: False for name in shortcuts if hasattr(config, name)})


def unlifted(reason: str) -> Callable[[Callable], Callable]:
    """Marks a test in which no frame needs lifting, or one may stay with torch: the unified run asserts neither."""

    def mark(function: Callable) -> Callable:
        function.unlifted = reason  # type: ignore[attr-defined]
        return function

    return mark


def assert_same(got: object, want: object) -> None:
    """Same structure, same values; tensors also agree in dtype, strides, class and requires_grad."""
    got_leaves, got_tree = pytree.tree_flatten(got)
    want_leaves, want_tree = pytree.tree_flatten(want)
    assert got_tree == want_tree
    for left, right in zip(got_leaves, want_leaves, strict=True):
        if isinstance(right, torch.Tensor):
            assert type(left) is type(right)
            assert left.requires_grad == right.requires_grad
            if right.device.type == "meta":
                assert (left.device, left.shape, left.dtype) == (right.device, right.shape, right.dtype)
            else:
                torch.testing.assert_close(left, right, equal_nan=True, check_stride=True, rtol=1e-5, atol=1e-5)
        elif isinstance(right, float) and math.isnan(right):
            assert math.isnan(left)
        else:
            assert left == right
            assert type(left) is type(right)


class Watched:
    """A compiled function that counts its compiles and whose every call is compared with eager's."""

    def __init__(self, function: Callable, **options: Any) -> None:
        self.function = function
        self.graphs = 0
        self.compiled = torch.compile(function, backend=self.backend, **options)

    def backend(self, graph: torch.fx.GraphModule, inputs: list) -> Callable:
        self.graphs += 1
        return graph.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        got = self.compiled(*args, **kwargs)
        assert_same(got, self.function(*args, **kwargs))
        return got

    def expect(self, graphs: int, *args: Any, **kwargs: Any) -> None:
        """Calls, compares with eager, and asserts how many graphs have been compiled by then."""
        self(*args, **kwargs)
        assert self.graphs == graphs, f"{self.graphs} graphs compiled, {graphs} expected, called with {args} {kwargs}"

    def expect_fresh(self, graphs: int, make: Callable[[], tuple]) -> None:
        """As ``expect`` for arguments that a call uses up."""
        assert_same(self.compiled(*make()), self.function(*make()))
        assert self.graphs == graphs, f"{self.graphs} graphs compiled, {graphs} expected"


def static(function: Callable, **options: Any) -> Watched:
    """Without automatic dynamic shapes: every changed size or int is a recompile."""
    return Watched(function, dynamic=False, **options)


def collect() -> None:
    """Frees what nothing refers to: `inspect.getattr_static` of Python 3.12.0 to 3.12.3 remembers classes."""
    cached = getattr(inspect, "_shadowed_dict_from_mro_tuple", None)
    if cached is not None:
        cached.cache_clear()
    gc.collect()


def ones(*sizes: int, **options: Any) -> torch.Tensor:
    return torch.ones(*(sizes or (3,)), **options)


def cache_entries(function: Callable) -> list:
    return torch._dynamo.eval_frame._debug_get_cache_entry_list(inspect.unwrap(function).__code__)


@contextlib.contextmanager
def fixed_order() -> Iterator[None]:
    """Hits stay where they are. Otherwise a thread that walks the entries can miss one that another moves."""
    torch._C._dynamo.eval_frame._set_lru_cache(False)
    try:
        yield
    finally:
        torch._C._dynamo.eval_frame._set_lru_cache(True)


def run_threads(targets: list[Callable[[], None]], timeout: float = 120) -> None:
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads), "deadlock"

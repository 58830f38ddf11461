"""The state of the thread changes, which compiled code depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch.overrides import TorchFunctionMode

from ..harness import assert_same, ones, static


class ChangedGlobalState:
    """State outside the frame that the compiled code depends on."""

    def state(self, function: Callable, context: Callable[[], Any], *, recompiles: bool = True) -> None:
        """A change of state misses once, each state keeps its own graph."""
        x = ones(3, 3, requires_grad=True)
        watched = static(function)
        watched.expect(1, x)
        changed = 2 if recompiles else 1
        for _ in range(2):
            with context():
                watched.expect(changed, x)
                watched.expect(changed, x)
            watched.expect(changed, x)

    @staticmethod
    def matmul(x: torch.Tensor) -> torch.Tensor:
        return x @ x + 1

    @staticmethod
    def creation(x: torch.Tensor) -> torch.Tensor:
        return torch.ones(3) * 2

    def test_no_grad(self) -> None:
        self.state(self.matmul, torch.no_grad)

    def test_inference_mode(self) -> None:
        self.state(self.matmul, torch.inference_mode)

    def test_autocast(self) -> None:
        self.state(self.matmul, lambda: torch.autocast("cpu", dtype=torch.bfloat16))

    def test_autocast_dtype(self) -> None:
        watched = static(self.matmul)
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                watched(ones(3, 3))
            with torch.autocast("cpu", dtype=torch.float16):
                watched(ones(3, 3))
        assert watched.graphs == 2

    def test_autocast_cache(self) -> None:
        @contextlib.contextmanager
        def uncached() -> Iterator[None]:
            with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
                yield

        self.state(self.matmul, uncached)

    def test_default_dtype(self) -> None:
        @contextlib.contextmanager
        def double() -> Iterator[None]:
            torch.set_default_dtype(torch.float64)
            try:
                yield
            finally:
                torch.set_default_dtype(torch.float32)

        self.state(self.creation, double)

    def test_deterministic_algorithms(self) -> None:
        @contextlib.contextmanager
        def deterministic() -> Iterator[None]:
            torch.use_deterministic_algorithms(True, warn_only=True)
            try:
                yield
            finally:
                torch.use_deterministic_algorithms(False)

        self.state(self.matmul, deterministic)

    def test_number_of_threads(self) -> None:
        count = torch.get_num_threads()

        @contextlib.contextmanager
        def threads() -> Iterator[None]:
            torch.set_num_threads(count + 1)
            try:
                yield
            finally:
                torch.set_num_threads(count)

        self.state(self.matmul, threads)

    def test_matmul_precision(self) -> None:
        @contextlib.contextmanager
        def precision() -> Iterator[None]:
            torch.backends.cuda.matmul.allow_tf32 = True
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32 = False

        before = torch.backends.cuda.matmul.fp32_precision  # that of a new process is none of the two
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            self.state(self.matmul, precision)
        finally:
            torch.backends.cuda.matmul.fp32_precision = before

    def test_default_device(self) -> None:
        self.state(self.creation, lambda: torch.device("meta"))

    def test_default_device_set(self) -> None:
        @contextlib.contextmanager
        def meta() -> Iterator[None]:
            torch.set_default_device("meta")
            try:
                yield
            finally:
                torch.set_default_device(None)

        self.state(self.creation, meta)

    def test_torch_function_mode(self) -> None:
        class Passing(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return func(*args, **(kwargs or {}))

        self.state(self.creation, Passing)

    def test_torch_function_disabled(self) -> None:
        self.state(self.matmul, torch._C.DisableTorchFunctionSubclass)

    def test_saved_tensors_hooks(self) -> None:
        pack = torch.fx.symbolic_trace(lambda x: x + 0)
        self.state(self.matmul, lambda: torch.autograd.graph.saved_tensors_hooks(pack, pack))

    def test_saved_tensors_hooks_that_cannot_be_inlined(self) -> None:
        self.state(
            self.matmul,
            lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
            recompiles=False,
        )

    def test_dual_level(self) -> None:
        self.state(self.matmul, torch.autograd.forward_ad.dual_level, recompiles=False)

    def test_anomaly_mode_is_not_guarded(self) -> None:
        self.state(self.matmul, lambda: torch.autograd.detect_anomaly(check_nan=False), recompiles=False)

    def test_vmap_outside(self) -> None:
        watched = static(lambda x: x * 2 + 1)
        plain = watched(ones())
        assert_same(plain, ones() * 3)
        stacked = torch.vmap(watched.compiled)(ones(4, 3))
        assert_same(stacked, ones(4, 3) * 3)
        assert_same(torch.vmap(watched.compiled)(ones(4, 3)), stacked)
        graphs = watched.graphs
        watched.expect(graphs, ones())

    def test_grad_outside(self) -> None:
        watched = static(lambda x: (x * x).sum())
        watched.expect(1, ones())
        gradient = torch.func.grad(watched.compiled)(ones())
        assert_same(gradient, ones() * 2)
        graphs = watched.graphs
        assert_same(torch.func.grad(watched.compiled)(ones()), ones() * 2)
        watched.expect(watched.graphs, ones())
        assert watched.graphs == graphs

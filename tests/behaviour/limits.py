"""What happens at the limit of recompiles: torch's count decides, and the frame runs eagerly."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo

from ..harness import assert_same, ones, static

SHARED_TENSOR = torch.ones(3)


class Limits:
    """The recompile limit counts what torch counts, then the frame runs eagerly."""

    def test_recompile_limit(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=3):
            watched = static(lambda x, number: x * number)
            for number in range(10, 20):
                watched(ones(), number)
            assert watched.graphs == 3
            watched.expect(3, ones(), 10)
            watched.expect(3, ones(), 12)

    def test_cached_graphs_are_used_after_the_limit(self) -> None:
        runs = 0

        def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            def run(*args: Any) -> Any:
                nonlocal runs
                runs += 1
                return graph.forward(*args)

            return run

        with torch._dynamo.config.patch(recompile_limit=2):
            compiled = torch.compile(lambda x, number: x * number, backend=backend, dynamic=False)
            for number in (3, 4, 5, 6):
                assert_same(compiled(ones(), number), ones() * number)
            assert runs == 2
            assert_same(compiled(ones(), 3), ones() * 3)
            assert runs == 3

    def test_accumulated_limit(self) -> None:
        with torch._dynamo.config.patch(accumulated_recompile_limit=3):
            watched = static(lambda x, number: x * number)
            for number in range(10, 16):
                watched(ones(), number)
            assert watched.graphs == 3

    def test_failing_at_the_limit(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
            watched = static(lambda x, number: x * number)
            watched.expect(1, ones(), 3)
            with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit, match="fail_on_recompile_limit_hit"):
                watched.compiled(ones(), 4)
            watched.expect(1, ones(), 3)

    def test_full_graph_at_the_limit(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=1):
            watched = static(lambda x, number: x * number, fullgraph=True)
            watched.expect(1, ones(), 3)
            with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
                watched.compiled(ones(), 4)

    def test_recompile_limit_of_one_function(self) -> None:
        watched = static(lambda x, number: x * number)
        watched.compiled = torch.compile(
            watched.function, backend=watched.backend, dynamic=False, **self.limit_option(2)
        )
        for number in range(10, 15):
            watched(ones(), number)
        assert watched.graphs == (2 if self.limit_option(2) else 5)

    @staticmethod
    def limit_option(limit: int) -> dict[str, int]:
        accepted = inspect.signature(torch.compile).parameters
        return {"recompile_limit": limit} if "recompile_limit" in accepted else {}

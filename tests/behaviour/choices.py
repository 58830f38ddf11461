"""Options and stances of ``torch.compile``: what they choose is the same with our guards."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

from ..harness import Watched, assert_same, cache_entries, ones, static, unlifted
from .values import Plain


class Choices:
    """Options and stances of torch.compile."""

    def test_guard_filter(self) -> None:
        def keep(entries: list) -> list[bool]:
            return [entry.name not in ("number", "L['number']") for entry in entries]

        def function(x: torch.Tensor, number: int) -> torch.Tensor:
            return x * number

        watched = static(function)
        watched.compiled = torch.compile(
            function, backend=watched.backend, dynamic=False, options={"guard_filter_fn": keep}
        )
        watched.expect(1, ones(), 3)
        assert_same(watched.compiled(ones(), 4), ones() * 3)  # unguarded, as asked
        watched.expect(2, ones(4), 3)

    @unlifted("a frame without guards needs no checker")
    def test_all_guards_filtered(self) -> None:
        watched = static(lambda x: x * 2)
        watched.compiled = torch.compile(
            watched.function,
            backend=watched.backend,
            dynamic=False,
            options={"guard_filter_fn": lambda entries: [False] * len(entries)},
        )
        watched.expect(1, ones(3))
        watched.expect(1, ones(4))

    def test_keep_tensor_guards_only(self) -> None:
        if not hasattr(torch.compiler, "keep_tensor_guards_unsafe"):
            pytest.skip("this torch has no keep_tensor_guards_unsafe")
        watched = static(lambda x, number: x * number)
        watched.compiled = torch.compile(
            watched.function,
            backend=watched.backend,
            dynamic=False,
            options={"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe},
        )
        watched.expect(1, ones(3), 3)
        assert_same(watched.compiled(ones(3), 4), ones() * 3)
        watched.expect(2, ones(4), 3)

    def test_fail_on_recompile(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones(3))
        with torch.compiler.set_stance("fail_on_recompile"):
            watched.expect(1, ones(3))
            with pytest.raises(RuntimeError, match=r"size mismatch at index 0\. expected 3, actual 4"):
                watched.compiled(ones(4))
        watched.expect(2, ones(4))

    def test_eager_on_recompile(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones(3))
        with torch.compiler.set_stance("eager_on_recompile"):
            watched.expect(1, ones(3))
            watched.expect(1, ones(4))
        watched.expect(2, ones(4))

    @unlifted("nothing is compiled")
    def test_force_eager(self) -> None:
        watched = static(lambda x: x * 2)
        with torch.compiler.set_stance("force_eager"):
            watched.expect(0, ones(3))

    def test_eager_then_compile(self) -> None:
        watched = Watched(lambda x: x * 2)
        with torch.compiler.set_stance("eager_then_compile"):
            watched.expect(0, ones(3))
            watched.expect(1, ones(4))
            watched.expect(1, ones(5))

    def test_skip_guard_eval(self) -> None:
        watched = static(lambda x, number: x * number)
        watched.expect(1, ones(3), 3)
        watched.expect(2, ones(4), 3)
        watched.expect(3, ones(4), 5)
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            for _ in range(3):
                watched.expect(3, ones(3), 3)
                watched.expect(3, ones(4), 3)
                watched.expect(3, ones(4), 5)
            with pytest.raises(RuntimeError, match="skip_guard_eval_unsafe"):
                watched.compiled(ones(5), 3)
        watched.expect(3, ones(3), 3)
        watched.expect(4, ones(5), 3)

    def test_skip_guard_eval_after_more_recompiles(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        watched.expect(1, ones(3), Plain(scale=2))
        watched.expect(2, ones(3), Plain(scale=3))
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            watched.expect(2, ones(3), Plain(scale=2))
        watched.expect(3, ones(3), Plain(scale=4))
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            for scale in (4, 3, 2):
                watched.expect(3, ones(3), Plain(scale=scale))

    def test_another_backend_is_another_entry(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        first, second = static(function), static(function)
        first.expect(1, ones())
        second.expect(1, ones())
        first.expect(1, ones())
        second.expect(1, ones())
        assert len(cache_entries(function)) == 2

    def test_most_recently_used_first(self) -> None:
        watched = static(lambda x, number: x * number)
        for number in (3, 4, 5):
            watched(ones(), number)
        for number in (3, 5, 4, 4, 3):
            watched.expect(3, ones(), number)
            parts = cache_entries(watched.function)[0].guard_manager.code_parts
            assert any(f"L['number'] == {number}" in part for part in parts)

    def test_disabled_function(self) -> None:
        scale = 2

        @torch._dynamo.disable
        def helper(x: torch.Tensor) -> torch.Tensor:
            return x * scale

        watched = static(lambda x: helper(x + 1) * 2)
        watched(ones())
        graphs = watched.graphs
        scale = 3
        watched.expect(graphs, ones())

"""Sizes that become symbolic, by themselves or by marks, and the guards of the ShapeEnv."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch._dynamo

from ..harness import Watched, ones


def inference_tensor() -> torch.Tensor:
    with torch.inference_mode():
        return ones(2, 3)


class DynamicShapes:
    """Automatic dynamic shapes, marks, and the guards that the ShapeEnv writes."""

    def test_a_size_turns_dynamic(self) -> None:
        watched = Watched(lambda x: x * 2)
        watched.expect(1, ones(5))
        watched.expect(2, ones(6))
        for size in (7, 8, 100):
            watched.expect(2, ones(size))
        watched.expect(3, ones(1))
        watched.expect(4, ones(0))
        watched.expect(4, ones(1))
        watched.expect(4, ones(9))

    def test_an_int_turns_dynamic(self) -> None:
        watched = Watched(lambda x, number: x * number)
        watched.expect(1, ones(), 3)
        watched.expect(2, ones(), 4)
        watched.expect(2, ones(), 5)
        for number in (-9, 0, 1, 2**40):
            watched.expect(2, ones(), number)
        watched.expect(3, ones(), True)
        watched.expect(3, ones(), 77)

    def test_an_int_that_is_a_size(self) -> None:
        watched = Watched(lambda x, number: x.sum() * torch.ones(number))
        watched.expect(1, ones(), 3)
        watched.expect(2, ones(), 4)
        watched.expect(2, ones(), 5)
        watched.expect(2, ones(), 2)
        watched.expect(3, ones(), 1)
        watched.expect(3, ones(), 0)
        watched.expect(3, ones(), 9)

    def test_a_float_turns_dynamic(self) -> None:
        watched = Watched(lambda x, number: x * number)
        watched.expect(1, ones(), 1.5)
        watched.expect(2, ones(), 2.5)
        watched.expect(2, ones(), 3.5)
        watched.expect(3, ones(), 2)

    def test_dynamic_float_that_is_not_a_number(self) -> None:
        watched = Watched(lambda x, number: x * number)
        watched.expect(1, ones(), 1.5)
        watched.expect(2, ones(), 2.5)
        watched.expect(3, ones(), float("nan"))
        watched.expect(3, ones(), float("nan"))
        watched.expect(3, ones(), 9.5)

    def test_dynamic_from_the_start(self) -> None:
        watched = Watched(lambda x: x * x.size(0), dynamic=True)
        watched.expect(1, ones(5))
        watched.expect(1, ones(6))
        watched.expect(2, ones(1))

    def test_equal_sizes_that_become_unequal(self) -> None:
        watched = Watched(lambda x, y: torch.cat([x, y]) * x.size(0), dynamic=True)
        watched.expect(1, ones(5), ones(5))
        watched.expect(1, ones(6), ones(6))
        watched.expect(2, ones(6), ones(7))
        watched.expect(2, ones(9), ones(9))

    def test_branch_on_a_size(self) -> None:
        watched = Watched(lambda x: x * 2 if x.size(0) > 10 else x * 3, dynamic=True)
        watched.expect(1, ones(20))
        watched.expect(1, ones(11))
        watched.expect(2, ones(10))
        watched.expect(2, ones(2))
        watched.expect(2, ones(30))

    def test_divisibility_of_a_size(self) -> None:
        watched = Watched(lambda x: x * 2 if x.size(0) % 4 == 0 else x * 3, dynamic=True)
        watched.expect(1, ones(8))
        watched.expect(1, ones(12))
        watched.expect(2, ones(9))
        watched.expect(2, ones(10))
        watched.expect(2, ones(16))

    def test_relation_between_sizes_of_two_inputs(self) -> None:
        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.sum() * 2 if x.size(0) * 2 == y.size(0) + 1 else y.sum() * 3

        watched = Watched(function, dynamic=True)
        watched.expect(1, ones(4), ones(7))
        watched.expect(1, ones(5), ones(9))
        watched.expect(2, ones(5), ones(10))
        watched.expect(2, ones(6), ones(11))

    def test_dynamic_stride(self) -> None:
        watched = Watched(lambda x: x * 2, dynamic=True)
        watched.expect(1, ones(4, 6))
        watched.expect(1, ones(5, 7))
        watched.expect(2, ones(6, 4).t())
        watched.expect(2, ones(9, 8).t())

    def test_branch_on_a_dynamic_int(self) -> None:
        watched = Watched(lambda x, number: x * 2 if number > 10 else x * number, dynamic=True)
        watched.expect(1, ones(), 20)
        watched.expect(1, ones(), 30)
        watched.expect(2, ones(), 5)
        watched.expect(2, ones(), 6)
        watched.expect(2, ones(), 2**40)

    def test_mark_dynamic(self) -> None:
        watched = Watched(lambda x: x * 2)
        x = ones(5, 4)
        torch._dynamo.mark_dynamic(x, 0)
        watched.expect(1, x)
        watched.expect(1, ones(6, 4))
        watched.expect(2, ones(6, 5))

    def test_mark_dynamic_after_a_static_compile(self) -> None:
        watched = Watched(lambda x: x * 2)
        watched.expect(1, ones(5))
        x = ones(5)
        torch._dynamo.mark_dynamic(x, 0)
        watched.expect(2, x)
        watched.expect(2, ones(5))
        watched.expect(2, ones(7))

    def test_maybe_mark_dynamic(self) -> None:
        watched = Watched(lambda x: x * 2)
        x = ones(5)
        torch._dynamo.maybe_mark_dynamic(x, 0)
        watched.expect(1, x)
        watched.expect(1, ones(6))

    def test_mark_static(self) -> None:
        watched = Watched(lambda x: x * 2, dynamic=True)
        x, y = ones(5, 6), ones(7, 6)
        torch._dynamo.mark_static(x, 0)
        torch._dynamo.mark_static(y, 0)
        watched.expect(1, x)
        watched.expect(2, y)
        watched.expect(2, x)

    def test_mark_unbacked(self) -> None:
        watched = Watched(lambda x: x * 2)
        x = ones(5)
        torch._dynamo.decorators.mark_unbacked(x, 0)
        watched.expect(1, x)
        watched.expect(1, ones(6))

    def test_storage_offset_in_the_graph(self) -> None:
        watched = Watched(lambda x: x * (x.storage_offset() + 2), dynamic=True)
        base = torch.arange(20.0)
        watched.expect(1, base[3:8])
        watched(base[4:9])
        watched(base[5:9])
        assert watched.graphs == 1

    def test_mutated_inputs_that_overlap(self) -> None:
        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x.add_(1)
            return x * y.size(0) + y.sum()

        watched = Watched(function, dynamic=True)
        counting = watched.backend

        def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            counting(graph, inputs)
            return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

        watched.compiled = torch.compile(function, backend=backend, dynamic=True)

        def views(start: int) -> tuple:
            base = torch.arange(20.0)
            return base[:8], base[start : start + 6]

        watched.expect_fresh(1, lambda: views(4))
        watched.expect_fresh(1, lambda: views(5))
        watched.expect_fresh(2, lambda: views(9))
        watched.expect_fresh(2, lambda: views(4))

    def test_many_dynamic_inputs(self) -> None:
        def function(*inputs: torch.Tensor) -> torch.Tensor:
            total = inputs[0].sum()
            for index, x in enumerate(inputs):
                total = total + x.sum() * (index + x.size(0))
            return total

        watched = Watched(function, dynamic=True)
        watched.expect(1, *(ones(3 + index) for index in range(12)))
        watched.expect(1, *(ones(30 - index) for index in range(12)))
        watched.expect(1, *(ones(2, dtype=torch.float32) for _ in range(12)))

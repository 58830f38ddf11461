"""A tensor changes, or another one is passed: its metadata decides, not its data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import nn

from ..harness import ones, static
from .dynamic_shapes import inference_tensor
from .values import GLOBAL_TENSOR, Tagged


class ChangedTensors:
    """Tensor metadata, not data, decides."""

    VARIANTS: dict[str, Callable[[], torch.Tensor]] = {
        "dtype": lambda: ones(2, 3, dtype=torch.float64),
        "integer": lambda: torch.ones(2, 3, dtype=torch.int64),
        "size": lambda: ones(2, 4),
        "swapped": lambda: ones(3, 2),
        "rank": lambda: ones(2, 3, 1),
        "scalar": lambda: torch.tensor(1.0),
        "stride": lambda: ones(3, 2).t(),
        "expanded": lambda: ones(1, 3).expand(2, 3),
        "empty": lambda: ones(0, 3),
        "requires_grad": lambda: ones(2, 3, requires_grad=True),
        "subclass": lambda: ones(2, 3).as_subclass(Tagged),
        "parameter": lambda: nn.Parameter(ones(2, 3)),
        "frozen_parameter": lambda: nn.Parameter(ones(2, 3), requires_grad=False),
        "meta": lambda: ones(2, 3, device="meta"),
        "conjugate": lambda: torch.ones(2, 3, dtype=torch.complex64).conj(),
        "inference": lambda: inference_tensor(),
    }

    @pytest.mark.parametrize("name", VARIANTS)
    def test_recompiles_for(self, name: str) -> None:
        watched = static(lambda x: x * 2)
        variant = self.VARIANTS[name]
        watched.expect(1, ones(2, 3))
        watched.expect(1, ones(2, 3) * 5)
        watched.expect(2, variant())
        watched.expect(2, variant())
        watched.expect(2, ones(2, 3))

    def test_views_and_offsets_are_not_guarded(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones(2, 3))
        watched.expect(1, torch.arange(12.0)[3:9].view(2, 3))
        watched.expect(1, torch.arange(12.0).view(4, 3)[1:3])

    def test_stride_of_a_dimension_of_size_one(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones(1, 3))
        watched.expect(2, torch.as_strided(ones(12), (1, 3), (7, 1)))

    def test_sparse_tensor(self) -> None:
        watched = static(lambda x: (x * 2).to_dense() if x.is_sparse else x * 2)
        watched.expect(1, ones(2, 3))
        before = watched.graphs
        watched(ones(2, 3).to_sparse())
        watched(ones(2, 3).to_sparse())
        watched.expect(watched.graphs, ones(2, 3))
        assert before == 1

    def test_metadata_changed_in_place(self) -> None:
        watched = static(lambda x: x * 2)
        x = ones(4)
        watched.expect(1, x)
        x.resize_(2)
        watched.expect(2, x)
        x.data = ones(2, dtype=torch.float64)
        watched.expect(3, x)
        x.requires_grad_(True)
        watched.expect(4, x)
        x.requires_grad_(False)
        watched.expect(4, x)
        x.t_() if x.dim() == 2 else x.unsqueeze_(0)
        watched.expect(5, x)

    def test_swapped_tensors(self) -> None:
        watched = static(lambda x: x * 2)
        x, y = ones(3), ones(4, dtype=torch.float64)
        watched.expect(1, ones(3))
        watched.expect(1, x)  # a hit leaves no weak reference, which swap_tensors would refuse
        torch.utils.swap_tensors(x, y)
        watched.expect(2, x)
        watched.expect(2, y)

    def test_gradient_present(self) -> None:
        watched = static(lambda x: x * 2 if x.grad is None else x * 2 + x.grad)
        x = ones(requires_grad=True)
        watched.expect(1, x)
        x.grad = ones()
        watched.expect(2, x)
        x.grad = ones() * 2
        watched.expect(2, x)
        x.grad = None
        watched.expect(2, x)

    def test_attribute_of_a_tensor(self) -> None:
        watched = static(lambda x: x * 2 if hasattr(x, "mark") else x * 3)
        marked = ones()
        marked.mark = True
        watched.expect(1, ones())
        watched.expect(2, marked)
        watched.expect(2, ones())

    def test_aliased_inputs(self) -> None:
        watched = static(lambda x, y: x * 2 + y)
        x, y, z = ones(), ones() * 2, ones() * 3
        watched.expect(1, x, y)
        watched.expect(2, x, x)
        watched.expect(2, y, z)
        watched.expect(2, z, z)

    def test_aliased_inputs_first(self) -> None:
        watched = static(lambda x, y: x * 2 + y)
        x, y = ones(), ones() * 2
        watched.expect(1, x, x)
        watched.expect(2, x, y)
        watched.expect(2, y, y)

    def test_aliased_among_three(self) -> None:
        watched = static(lambda x, y, z: x * 2 + y * 3 + z * 5)
        x, y, z = ones(), ones() * 2, ones() * 3
        watched.expect(1, x, y, z)
        watched.expect(2, x, y, x)
        watched.expect(3, x, x, y)
        watched.expect(4, x, x, x)
        watched.expect(4, z, y, x)
        watched.expect(4, z, y, z)

    def test_aliased_argument_and_global(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(globals(), "GLOBAL_TENSOR", ones())
        watched = static(lambda x: x * 2 + GLOBAL_TENSOR)
        watched.expect(1, ones())
        watched.expect(2, GLOBAL_TENSOR)
        watched.expect(2, ones())

    def test_views_of_one_tensor_are_no_aliases(self) -> None:
        watched = static(lambda x, y: x * 2 + y)
        base = torch.arange(6.0)
        watched.expect(1, ones(), ones())
        watched.expect(1, base[:3], base[3:])
        watched.expect(1, base[:3], base[1:4])

    def test_wrapper_subclass(self) -> None:
        from torch.testing._internal.two_tensor import TwoTensor

        watched = static(lambda x: x * 2)
        watched.expect(1, TwoTensor(ones(), ones()))
        watched.expect(1, TwoTensor(ones(), ones() * 2))
        watched.expect(2, TwoTensor(ones(4), ones(4)))
        watched.expect(3, ones())
        watched.expect(3, TwoTensor(ones(), ones()))

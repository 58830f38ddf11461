"""What torch compares of a DTensor's spec and mesh with Python functions is compared natively, and decided alike."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

import unified_guards
from unified_guards.dynamo import compat
from unified_guards.guards.ir import Test

from ..harness import cache_entries, ones


@pytest.fixture(autouse=True)
def _processes() -> Iterator[None]:
    """This process takes itself for the first of eight; nothing is sent."""
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def mesh_of(*sizes: int, names: tuple[str, ...] = ("a", "b")) -> DeviceMesh:
    return init_device_mesh("cpu", sizes, mesh_dim_names=names[: len(sizes)])


def sharded(*placements: Any, mesh: DeviceMesh | None = None, dtype: torch.dtype = torch.float32) -> DTensor:
    return DTensor.from_local(ones(4, 4, dtype=dtype), mesh or mesh_of(2, 4), placements or (Shard(0), Replicate()))


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Compiled:
    """A function compiled for a DTensor, and its one entry."""

    def __init__(self, x: Any, function: Callable[..., Any] = double) -> None:
        with unified_guards.installed():
            torch.compile(function, backend="eager", dynamic=False)(x)
        (entry,) = cache_entries(function)
        self.wrapper = entry.guard_manager
        (self.report,) = unified_guards.explain(function).frames

    def expect(self, fits: bool, x: Any) -> None:
        """Both tiers and torch's tree say so, and ours calls no Python function."""
        frame, checker = {"x": x}, self.wrapper.entry.checker
        before = unified_guards.stats().python_callbacks
        assert checker.check(frame) is checker.exact(frame) is fits
        assert unified_guards.stats().python_callbacks == before
        assert bool(self.wrapper.torch_root.check(frame)) is fits


def _with_spec(**changes: Any) -> DTensor:
    x = sharded()
    x._spec = dataclasses.replace(x._spec, **changes)
    return x


def _in_place(change: Callable[[DTensor], object]) -> DTensor:
    x = sharded()
    x._spec = copy.deepcopy(x._spec)
    change(x)
    return x


#: What differs from the tensor that was compiled for, and whether the code may be used.
CHANGES: dict[str, tuple[bool, Callable[[], Any]]] = {
    "nothing": (True, sharded),
    "an equal mesh": (True, lambda: sharded(mesh=copy.deepcopy(mesh_of(2, 4)))),
    "an equal spec": (True, lambda: _in_place(lambda x: None)),
    "another placement": (False, lambda: sharded(Replicate(), Replicate())),
    "another dimension": (False, lambda: sharded(Shard(1), Replicate())),
    "placements the other way round": (False, lambda: sharded(Replicate(), Shard(0))),
    "a partial sum": (False, lambda: sharded(Partial(), Replicate())),
    "a strided shard": (False, lambda: sharded(_StridedShard(0, split_factor=2), Replicate())),
    "another mesh": (False, lambda: sharded(mesh=mesh_of(4, 2))),
    "a mesh with other names": (False, lambda: sharded(mesh=mesh_of(2, 4, names=("a", "c")))),
    "a smaller mesh": (False, lambda: sharded(Shard(0), mesh=mesh_of(8))),
    "another dtype": (False, lambda: sharded(dtype=torch.float64)),
    "a dtype in the spec alone": (
        False,
        lambda: _with_spec(tensor_meta=sharded()._spec.tensor_meta._replace(dtype=torch.float64)),
    ),
    "no tensor in the spec": (False, lambda: _with_spec(tensor_meta=None)),
    "another order of shards": (False, lambda: _in_place(lambda x: vars(x._spec).update(shard_order=()))),
    "names set in place": (
        False,
        lambda: _in_place(lambda x: setattr(x._spec.mesh, "_mesh_dim_names", ("b", "a"))),
    ),
    "ranks set in place": (
        False,
        lambda: _in_place(lambda x: setattr(x._spec.mesh, "_flatten_rank_map", tuple(range(7, -1, -1)))),
    ),
    "a plain tensor": (False, lambda: ones(4, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_decides_as_torch_does(change: str) -> None:
    made = Compiled(sharded())
    assert made.report.python_callbacks == 0
    fits, make = CHANGES[change]
    for _ in range(2):
        made.expect(True, sharded())
        made.expect(fits, make())


@pytest.mark.parametrize(
    ("compiled", "other"),
    [
        (Partial(), Partial("avg")),
        (Partial(), Partial("max")),
        (_StridedShard(0, split_factor=2), _StridedShard(0, split_factor=4)),
        (_StridedShard(0, split_factor=2), Shard(0)),
        (Shard(1), Shard(0)),
    ],
)
def test_fields_of_placements_are_compared(compiled: Any, other: Any) -> None:
    made = Compiled(sharded(compiled, Replicate()))
    made.expect(True, sharded(copy.deepcopy(compiled), Replicate()))
    made.expect(False, sharded(other, Replicate()))


def test_a_spec_that_changes_in_place_is_noticed() -> None:
    x = sharded()
    made = Compiled(x)
    for _ in range(2):
        made.expect(True, x)
    x._spec.placements = (Shard(1), Replicate())
    made.expect(False, x)
    x._spec.placements = (Shard(0), Replicate())
    made.expect(True, x)


class Own(Replicate):
    """A placement of a user's."""


def test_a_placement_that_is_not_known_stays_torchs_function() -> None:
    made = Compiled(sharded(Own(), Replicate()))
    assert made.report.python_callbacks == 1
    assert any(item.test is Test.PREDICATE for item in made.report.checked or ())


COMPARES_IDENTITIES = pytest.mark.skipif(
    compat.TORCH < (2, 13), reason="torch 2.11 asks whether meshes are equal, not whether two are one"
)


def _of_both(x: tuple[DTensor, DeviceMesh]) -> torch.Tensor:
    tensor, mesh = x
    return tensor * DTensor.from_local(tensor.to_local(), mesh, tensor.placements, run_check=False)


@COMPARES_IDENTITIES
def test_that_two_meshes_are_one_is_asked_natively() -> None:
    mesh = mesh_of(2, 4)
    made = Compiled((sharded(mesh=mesh), mesh), _of_both)
    assert made.report.python_callbacks == 0
    assert any(item.test is Test.SAME for item in made.report.checked or ())
    for _ in range(2):
        made.expect(True, (sharded(mesh=mesh), mesh))
        made.expect(False, (sharded(mesh=mesh), copy.deepcopy(mesh)))


@COMPARES_IDENTITIES
def test_another_property_for_the_mesh_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(2, 4)
    made = Compiled((x := sharded(mesh=mesh), mesh), _of_both)
    made.expect(True, (x, mesh))
    monkeypatch.setattr(DTensor, "device_mesh", property(lambda self: copy.deepcopy(self._spec.mesh)))
    made.expect(False, (x, mesh))


class TestClosedOver:
    """A placement and a mesh that the function finds in a partial object."""

    def compiled(self) -> tuple[Any, Compiled]:
        with unified_guards.installed():
            made = Compiled(self.given(Shard(0)), _distributes)
        return made, made

    def given(self, placement: Any, mesh: DeviceMesh | None = None) -> Any:
        return functools.partial(_Holder, (placement,), mesh or mesh_of(8))()

    @pytest.mark.parametrize(
        ("fits", "placement"), [(True, Shard(0)), (False, Shard(1)), (False, Replicate()), (False, Partial())]
    )
    def test_placements_are_compared(self, fits: bool, placement: Any) -> None:
        made, _ = self.compiled()
        made.expect(fits, self.given(placement))

    def test_meshes_are_compared(self) -> None:
        made, _ = self.compiled()
        made.expect(True, self.given(Shard(0), copy.deepcopy(mesh_of(8))))
        made.expect(False, self.given(Shard(0), mesh_of(8, names=("z",))))


class _Holder:
    def __init__(self, placements: tuple[Any, ...], mesh: DeviceMesh) -> None:
        self.placements, self.mesh, self.local = placements, mesh, ones(4, 4)


def _distributes(x: _Holder) -> torch.Tensor:
    return DTensor.from_local(x.local, x.mesh, x.placements, run_check=False) * 2

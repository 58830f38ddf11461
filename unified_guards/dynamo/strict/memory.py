"""Rules: inputs share the memory that they shared, and begin in it where they began.

Entry points: :func:`memory`, :func:`leaves`, :func:`offsets`; :func:`tensor_guard`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from unified_guards import _C
from unified_guards.dynamo.strict.known import Dims, Extra, Known, Layout
from unified_guards.guards.ir import Access, Guard, Source, TensorFacts, Test, guard
from unified_guards.guards.memory import bytes_of_storage, storage_of
from unified_guards.guards.names import name_at


class _Input(NamedTuple):
    guard: Guard  # the tensor's
    tensor: torch.Tensor
    written: bool
    layout: Layout | None  # what the graph has made constants

    @property
    def source(self) -> Source:
        return self.guard.source


def _inputs(known: Known) -> Iterator[_Input]:
    """The inputs of the graph that are guarded tensors."""
    if known.call is None or known.mutated is None:
        return
    places: dict[int, Guard] = {}
    for item in known.guard_set:
        if item.test is Test.TENSOR:
            places.setdefault(id(known.live(item.source)), item)
    for name, written in zip(known.call.inputs, known.mutated, strict=True):
        tensor = known.tensors.get(name or "")
        place = places.get(id(tensor))
        if place is not None and storage_of(tensor) is not None:
            yield _Input(place, tensor, written, known.call.layout(name))


def memory(known: Known) -> Iterator[Extra]:
    """That inputs that are written to share memory with just those that they shared it with, in the same places.

    For the others nothing depends on it. One input stands for all that share a storage.
    """
    groups: dict[int | None, list[_Input]] = {}
    for each in _inputs(known):
        groups.setdefault(storage_of(each.tensor), []).append(each)
    if not any(each.written for group in groups.values() for each in group):
        return
    first = tuple(group[0].source for group in groups.values())
    if len(first) > 1:
        yield Extra(guard(Test.UNIQUE_STORAGE, first), first[0], "inputs that are written to share no memory")
    for group in groups.values():
        yield from _of_one_storage(group)
        if known.call is not None and known.call.cached and len(group) > 1:
            yield from _overlap(group)


def leaves(known: Known) -> Iterator[Extra]:
    """That inputs that require gradients and are written to are leaves, or are not: to a leaf code writes otherwise."""
    for each in _inputs(known):
        if each.written and each.tensor.requires_grad:
            place = each.source.child(Access.ATTR, "is_leaf")
            yield Extra(guard(Test.DEEP_EQUALS, (place,), (each.tensor.is_leaf,)), each.source, "a leaf is written to")


def _of_one_storage(group: list[_Input]) -> Iterator[Extra]:
    for each in group[1:]:
        pair = (group[0].source, each.source)
        yield Extra(guard(Test.SHARES_STORAGE, pair), each.source, "inputs that are written to share memory")
    if len(group) == 1 or not any(each.written for each in group):
        return
    # AOTAutograd replaces these inputs by views of one tensor. Where each view begins, and the sizes of that tensor,
    # become constants. Where they are symbols, torch guards them itself, and also where the inputs overlap.
    for each in group:
        yield from _beginning(each.source, each.tensor, each.layout.own if each.layout else None)
    view = next((each for each in group if each.tensor._base is not None), None)
    if view is None:
        yield _bytes(group[0])
    else:
        place, base = view.source.child(Access.ATTR, "_base"), view.tensor._base
        dims = view.layout.base if view.layout else None
        yield Extra(tensor_guard(place, base, dims), view.source, "what shared inputs are views of")
        yield from _beginning(place, base, dims)


def _beginning(source: Source, tensor: torch.Tensor, dims: Dims | None) -> Iterator[Extra]:
    if dims is None or dims.offset is not None:
        made = guard(Test.EQUALS, (source.child(Access.TENSOR_OFFSET),), (tensor.storage_offset(),))
        yield Extra(made, source, "where an input that is shared begins")


def _bytes(given: _Input) -> Extra:
    """That the memory has the same size: AOTAutograd makes one tensor of all of it where no input is a view."""
    place = given.source.child(Access.CALL1, bytes_of_storage)
    made = guard(Test.EQUALS, (place,), (bytes_of_storage(given.tensor),))
    return Extra(made, given.source, "the memory that inputs share")


def _overlap(group: list[_Input]) -> Iterator[Extra]:
    """What torch guards when AOTAutograd compiles, and not when the result comes from its cache."""
    tensors = [each.tensor for each in group]
    touching = torch._C._dynamo.guards.compute_overlapping_tensors(tensors, symbolic=True)
    order = sorted(range(len(group)), key=lambda at: at not in touching)
    made = guard(Test.OVERLAP, tuple(group[at].source for at in order), (len(touching),))
    yield Extra(made, group[0].source, "where inputs that are written to overlap")


def offsets(known: Known) -> Iterator[Extra]:
    """Where tensors begin, when what was traced depends on it by itself."""
    if known.call is None or not known.call.reads_offsets:
        return
    tensors = {id(tensor): name for name, tensor in known.tensors.items() if storage_of(tensor) is not None}
    for item in known.guard_set:
        tensor = known.live(item.source) if item.test is Test.TENSOR else None
        if id(tensor) in tensors:
            layout = known.call.layout(tensors[id(tensor)])
            yield from _beginning(item.source, tensor, layout.own if layout else None)


def tensor_guard(source: Source, tensor: torch.Tensor, known: Dims | None = None) -> Guard:
    """That a tensor is like this one; where `known` has the dims of a graph, with the sizes that it made constant."""
    keys, dtype, device, requires_grad = _C.tensor_facts(tensor, None)
    kind = type(tensor)
    sizes = known.sizes if known else tuple(tensor.size())
    strides = known.strides if known else tuple(tensor.stride())
    names = (name_at(id(kind)), str(tensor.dtype).removeprefix("torch."), str(tensor.device))
    facts = TensorFacts(id(kind), keys, dtype, device, requires_grad, sizes, strides, False, *names)
    return guard(Test.TENSOR, (source,), (facts,))

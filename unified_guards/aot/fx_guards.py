"""The guards of a graph that ``make_fx`` has traced: Dynamo's, and what a graph depends on beside them.

Entry points: :func:`guards_of`, :class:`Version`, :func:`travelling`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from unified_guards import config, verify
from unified_guards.dynamo.strict.known import Live, same_value
from unified_guards.dynamo.strict.memory import tensor_guard
from unified_guards.entry import Entry, Failure
from unified_guards.errors import Unguardable
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.guards.memory import storage_of
from unified_guards.guards.names import name_at
from unified_guards.lower.rows import make_checker
from unified_guards.statistics import tally

ARGS = Source.frame().child(Access.LOCAL, "args")
KWARGS = Source.frame().child(Access.LOCAL, "kwargs")

_ITEMS = frozenset({Access.DICT_ITEM, Access.TUPLE_ITEM, Access.LIST_ITEM})


class Version:
    """A graph and its guards.

    Attributes:
        graph: None for the graph of the module that is called, which may be a copy.
        keywords: the names of the arguments that the graph takes last.
        entry: the guards.
    """

    def __init__(
        self,
        guard_set: GuardSet,
        graph: torch.fx.GraphModule | None,
        keywords: tuple[str, ...],
        target: Any = None,
        is_current: Callable[[], bool] = lambda: True,
        kept: Any = None,
    ) -> None:
        self.graph = graph
        self.keywords = keywords
        self.entry = Entry(guard_set)
        share = verify.share()
        self._checker = make_checker(self.entry.lower(), _oracle(guard_set, share), witness=config.witness, share=share)
        self._target = target
        self._is_current = is_current
        self._kept = kept

    def of_the_module_itself(self) -> Version:
        """The same version, whose graph is that of the module which is called."""
        self.graph = None
        return self

    def in_order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments as the graph takes them."""
        return (*args, *(kwargs[name] for name in self.keywords if name in kwargs))

    def _frame(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"args": args, "kwargs": kwargs, "target": self._target}

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the guards hold, and all that they know by address is still there."""
        return self._is_current() and self._checker.check(self._frame(args, kwargs))

    def failure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Failure | None:
        """Why the last check failed."""
        if not self._is_current():
            return Failure(ARGS, "something that was guarded is gone")
        return self.entry.failure(self._checker.last_failure, self._frame(args, kwargs))


def _oracle(guard_set: GuardSet, share: float) -> Callable[[dict[str, Any], bool], bool | None] | None:
    """Compares a verdict with the slow evaluator's on the unsimplified set; None where none is to be compared."""
    if share == 0:
        return None
    # Imported here: without UNIFIED_GUARDS_VERIFY nothing asks the slow evaluator.
    from unified_guards.guards import semantics

    judge = verify.Judge(share, "a graph of make_fx", "the reference evaluator")

    def compare(frame: dict[str, Any], verdict: bool) -> bool | None:
        tally.compare()
        failing = semantics.explain_failure(guard_set, frame)
        if (failing is None) == verdict:
            return None
        if (semantics.explain_failure(guard_set, frame) is None) == verdict:
            return None  # code of the user's in a guard answers differently each time
        return judge.disagree(verdict, None if failing is None else str(failing))

    return compare


def guards_of(found: GuardSet, frame: dict[str, Any], *, symbolic: bool, writes: bool) -> tuple[GuardSet, list[Any]]:
    """What Dynamo guards, and what the graph depends on beside it.

    Args:
        found: the guards of the captured call.
        frame: its arguments and the function.
        symbolic: whether sizes and integers among the arguments are symbols of the graph.
        writes: whether the graph writes to tensors.

    Returns:
        The guards, and what they know by address and must not die.

    Raises:
        Unguardable: a tensor that becomes a constant of the graph is another one each time.
    """
    live, again, kept = Live(frame), Live(frame), []
    tensors = {item.source: live(item.source) for item in found if item.test is Test.TENSOR}
    given = {id(leaf) for leaf in pytree.tree_leaves((frame["args"], frame["kwargs"]))}
    added = [*_structure(frame["args"], ARGS), *_structure(frame["kwargs"], KWARGS), *_thread()]
    for source, tensor in tensors.items():
        if id(tensor) not in given:  # it is a constant of the graph
            if again(source) is not tensor:
                raise Unguardable(f"a tensor is made of what {source.base} is")
            kept.append(tensor)
            added.append((guard(Test.IS, (source,), (id(tensor), "that tensor")), "a tensor of the graph"))
            added.append((tensor_guard(source, tensor), "a tensor of the graph"))
    added += _numbers(found, live, symbolic)
    if writes:
        added += _storages(tensors)
    own = [(item, Provenance("aot", why)) for item, why in added]
    return GuardSet([*found.entries(), *own]), kept


_Reasoned = tuple[Guard, str]


def _structure(value: Any, source: Source) -> Iterator[_Reasoned]:
    """That containers among the arguments are alike: the graph takes all that they hold, also what is not read."""
    why, kind = "the structure of the arguments", type(value)
    if kind is dict:
        yield guard(Test.KEYS, (source,), (tuple(value),)), why
        below = [(source.child(Access.DICT_ITEM, key), item) for key, item in value.items()]
    elif kind in (tuple, list):
        yield guard(Test.LENGTH, (source,), (len(value), False)), why
        step = Access.TUPLE_ITEM if kind is tuple else Access.LIST_ITEM
        below = [(source.child(step, at), item) for at, item in enumerate(value)]
    else:
        below = []
    yield guard(Test.TYPE_IS, (source,), (id(kind), name_at(id(kind)))), why
    for each, item in below:
        yield from _structure(item, each)


def _thread() -> Iterator[_Reasoned]:
    frame = (Source.frame(),)
    yield guard(Test.INFERENCE_MODE, frame, (torch.is_inference_mode_enabled(),)), "inference mode"
    yield guard(Test.DUAL_LEVEL, frame, (forward_ad._current_level,)), "forward-mode level"


def _root(source: Source) -> Source | None:
    return next((step for step in source.steps() if step.base is not None and step.base.base is None), None)


def _is_of_arguments(source: Source) -> bool:
    return _root(source) in (ARGS, KWARGS)


def _is_an_argument(source: Source) -> bool:
    """Whether this is an argument itself, or an item of one."""
    below = [step for step in source.steps() if step.base is not None and step not in (ARGS, KWARGS)]
    return _is_of_arguments(source) and all(step.access in _ITEMS for step in below)


def _numbers(found: GuardSet, live: Live, symbolic: bool) -> Iterator[_Reasoned]:
    """That numbers are the same which Dynamo has made symbols of, and the graph constants."""
    for source in dict.fromkeys(item.source for item in found if item.test is Test.TYPE_IS):
        value = live(source)
        if type(value) in (int, float) and not (symbolic and type(value) is int and _is_an_argument(source)):
            yield same_value(source, value), "a number of the graph"


def _storages(tensors: dict[Source, torch.Tensor]) -> Iterator[_Reasoned]:
    """That tensors share memory which shared it; then, where in it each begins."""
    why, groups = "the graph writes to tensors", dict[int | None, list[Source]]()
    for source, tensor in tensors.items():
        groups.setdefault(storage_of(tensor), []).append(source)
    groups.pop(None, None)
    if len(groups) > 1:
        yield guard(Test.UNIQUE_STORAGE, tuple(group[0] for group in groups.values())), why
    for group in groups.values():
        for pair in itertools.pairwise(group):
            yield guard(Test.SHARES_STORAGE, pair), why
        for source in group if len(group) > 1 else ():
            offset = source.child(Access.TENSOR_OFFSET)
            yield guard(Test.EQUALS, (offset,), (tensors[source].storage_offset(),)), why


def travelling(guard_set: GuardSet) -> tuple[GuardSet, list[str]]:
    """The guards that can be checked in another process, and the texts of those that cannot.

    Raises:
        TypeError: a guard on an argument cannot be checked elsewhere.
    """
    read = GuardSet.from_json(guard_set.to_json())
    taken, left = [], []
    for (item, maker), (there, _) in zip(guard_set.entries(), read.entries(), strict=True):
        if all(_is_of_arguments(source) for source in item.sources):
            if there.test is Test.OPAQUE:
                raise TypeError(f"this graph cannot be pickled: a guard on its arguments holds only here: {item}")
            taken.append((item, maker))
        elif there.test is Test.OPAQUE or not all(_is_everywhere(source) for source in item.sources):
            left.append(str(item))
        else:
            taken.append((item, maker))
    return GuardSet(taken), left


def _is_everywhere(source: Source) -> bool:
    """Whether there is something like it in every process: an argument, a module, the state of the thread."""
    root = _root(source)
    return root is None or root in (ARGS, KWARGS) or root.access is Access.CONSTANT


__all__ = ["Version", "guards_of", "travelling"]

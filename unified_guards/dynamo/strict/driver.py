"""Adds the guards that torch leaves out: ``install(strict=True)``.

Each rule reads the set that was lifted and the live objects that it is about, and yields guards that hold now. More
guards can only mean more misses, never a false hit. Each guard is put behind another one on the same object, so that
the path to that object is walked once. Entry point: :func:`with_extras`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards.dynamo import compat
from unified_guards.dynamo.lift import Lifted
from unified_guards.dynamo.strict.backend_call import call_of, mutated
from unified_guards.dynamo.strict.hooks import hooks
from unified_guards.dynamo.strict.known import MAKER, Extra, Known, Live
from unified_guards.dynamo.strict.lookups import attributes
from unified_guards.dynamo.strict.memory import leaves, memory, offsets
from unified_guards.dynamo.strict.methods import functions, methods
from unified_guards.dynamo.strict.reads import taken
from unified_guards.dynamo.strict.specials import methods_of_tensors, specials
from unified_guards.dynamo.strict.state import folds, imports, storages
from unified_guards.dynamo.strict.values import keywords, orders, values
from unified_guards.guards.ir import Guard, GuardSet, Provenance, Source

#: Each reads what was lifted and the live objects, and yields guards that hold now.
RULES: tuple[Callable[[Known], Iterator[Extra]], ...] = (
    hooks,
    methods,
    functions,
    values,
    orders,
    keywords,
    memory,
    leaves,
    offsets,
    attributes,
    specials,
    methods_of_tensors,
    imports,
    folds,
    storages,
)


def _extras(known: Known) -> Iterator[Extra]:
    for rule in RULES:
        yield from rule(known)


def with_extras(lifted: Lifted, output_graph: Any) -> Lifted:
    """What was lifted of a frame, with the guards that torch leaves out.

    Args:
        lifted: the guards, and the tensors that torch guards.
        output_graph: Dynamo's of that frame, before its compiled code has run.

    Returns:
        The same guards in the same order with others between them, whose maker is ``"strict"``. The argument itself
        where Dynamo keeps no context of the compilation: such code (ahead of time) is not looked up.
    """
    context = getattr(output_graph, "tracing_context", None)
    if context is None or not context.traced_code:
        return lifted
    call = call_of(context)
    code, *inlined = context.traced_code
    known = Known(
        guard_set=lifted.guard_set,
        live=Live(output_graph.local_scope),
        code=code,
        f_globals=output_graph.global_scope,
        codes=tuple(context.traced_code),
        traced=frozenset(map(id, inlined)),
        tensors=lifted.tensors,
        call=call,
        mutated=mutated(context, call),
        reads=taken(context),
        resolve=functools.partial(compat.value_of_source, output_graph),
        done=set(),
    )
    with torch._C.DisableTorchFunction():
        extras = list(_extras(known))
    return lifted._replace(guard_set=_placed(lifted.guard_set, extras))


def _placed(guard_set: GuardSet, extras: list[Extra]) -> GuardSet:
    waiting: dict[Source, list[tuple[Guard, Provenance]]] = {}
    for extra in {each.guard: each for each in reversed(extras)}.values():
        waiting.setdefault(extra.place, []).insert(0, (extra.guard, Provenance(MAKER, extra.why)))
    entries: list[tuple[Guard, Provenance]] = []
    for item, maker in guard_set.entries():
        entries.append((item, maker))
        entries += waiting.pop(item.source, ())
    for rest in waiting.values():
        entries += rest
    return GuardSet(entries)

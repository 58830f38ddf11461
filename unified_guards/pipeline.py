"""The way of a guard set, from what Dynamo assumed of a frame to the native checker that is asked on every call.

========  =============================================================================================================
record    ``dynamo/tap.py`` notes what Dynamo asks of its guard tree while it builds that tree
lift      ``dynamo/lift.py`` makes a :class:`GuardSet` of it, ``dynamo/provenance.py`` says who caused each guard
add       ``dynamo/strict`` adds guards that torch leaves out, if ``install(strict=True)`` asked for them
simplify  ``simplify/driver.py`` leaves out what other guards imply
lower     ``lower/rows.py`` makes the rows of a flat program, ``lower/discriminators.py`` chooses what is asked first
check     ``csrc/check`` runs the program on every call, ``csrc/witness`` remembers what a check that passed has read
========  =============================================================================================================

The versions of an AOT entry point are captured by Dynamo (``aot/capture.py``) and go the same way, strictly. Entry
point: :func:`check_natively`.
"""

from __future__ import annotations

import types
from typing import Any

from unified_guards import verify
from unified_guards.dynamo import attribute_getters, measure
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.guard_manager import entries_of, oracle_of
from unified_guards.dynamo.lift import lift
from unified_guards.dynamo.provenance import Origins
from unified_guards.dynamo.strict.driver import with_extras
from unified_guards.guards.ir import Access
from unified_guards.guards.names import name_of_code
from unified_guards.lower.discriminators import discriminate


def check_natively(
    records: list[Any], origins: Origins, wrapper: Any, code: types.CodeType, output_graph: Any, *, strictly: bool
) -> DynamoEntry | None:
    """The cache entry of a frame, with its native checker; None where there is nothing to check.

    Args:
        records: what :func:`unified_guards.dynamo.tap.recording` collected while torch built its tree.
        origins: who caused which guard.
        wrapper: torch's guard manager, whose root is the tree.
        code: of the frame.
        output_graph: Dynamo's of the frame, before its compiled code has run.
        strictly: whether to add the guards that torch leaves out.

    Raises:
        CannotLift, CannotLower: a guard has no exact counterpart here. The frame stays with torch.
    """
    lifted = lift(records, wrapper.root, origins)
    if strictly:
        lifted = with_extras(lifted, output_graph)
    if not len(lifted.guard_set):
        return None
    entry = DynamoEntry(lifted.guard_set)  # simplifies
    entry.function = name_of_code(code)
    attributes = {source.key for source in entry.checked.sources() if source.access is Access.ATTR}
    attribute_getters.learn(lifted.examples, attributes)
    _build(entry, wrapper, code)  # lowers
    discriminate(entry, entries_of(code), DynamoEntry.ask_first)
    return entry


def _build(entry: DynamoEntry, wrapper: Any, code: types.CodeType) -> None:
    """Makes the checker of the entry. Where checks are compared or measured, the checker tells an observer of them."""
    share = verify.share()
    judge = verify.Judge(share, entry.function, "torch's guard tree")
    entry.judge = judge if share > 0 else None
    oracle = oracle_of(wrapper, wrapper.root, judge) if share > 0 else None
    if measure.is_on():
        entry.build(measure.watch(entry, wrapper.root, oracle))  # every check is measured, and compared on the way
        entry.checker.call_before(measure.torch_first(entry, wrapper.root))
    else:
        entry.build(oracle, share)

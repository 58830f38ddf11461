"""From a guard manager that torch has finished to one whose root is the native checker. Entry point: :func:`finish`."""

from __future__ import annotations

import types
import warnings
from typing import Any

from torch._C._dynamo import guards as native
from torch._guards import CompileContext

from unified_guards import config, pipeline
from unified_guards.dynamo import made
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.dynamo.lift import CannotLift
from unified_guards.dynamo.provenance import Origins
from unified_guards.errors import FallbackError
from unified_guards.lower.rows import CannotLower
from unified_guards.statistics import tally


def _unify(
    wrapper: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins, strictly: bool
) -> DynamoEntry | None:
    """Replaces the root of a finished wrapper by the native checker; None where there is nothing to check."""
    entry = pipeline.check_natively(records, origins, wrapper, code, output_graph, strictly=strictly)
    if entry is None:
        tally.lifted += 1  # nothing to check: torch's empty root is as good as any
        return None
    root = native.RootGuardManager()
    root.attach_compile_id(str(CompileContext.current_compile_id()))
    ask = entry.checker.callable()
    root.add_lambda_guard(ask, ["unified_guards"], None)
    wrapper.torch_root = wrapper.root
    wrapper.root = root
    wrapper.ask = ask
    wrapper.entry = entry
    wrapper.__class__ = UnifiedGuardManagerWrapper
    tally.lifted += 1
    return entry


def finish(
    manager: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins, *, strictly: bool
) -> None:
    """Unifies, or leaves torch's tree in place and counts why. Raises only when asked to."""
    try:
        entry = _unify(manager.guard_manager, code, output_graph, records, origins, strictly)
        why = None if entry is not None else made.WITHOUT_GUARDS
        made.note(manager.guard_manager, code, output_graph, why, entry)
        return
    except (CannotLift, CannotLower) as reason:
        why = str(reason)
    except Exception as error:
        why = f"internal error: {type(error).__name__}: {error}"
        if not tally.warned:
            tally.warned = True
            warnings.warn(
                f"unified_guards could not take over the guards of {code.co_name}: {why}. Torch's own guards stay in "
                "place, so results are not affected. Please report it.",
                stacklevel=2,
            )
    tally.left(why)
    made.note(manager.guard_manager, code, output_graph, why, None)
    if config.no_fallback:
        raise FallbackError(f"the guards of {code.co_name} ({code.co_filename}) stay torch's: {why}")

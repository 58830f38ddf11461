"""Why a guard did not hold on a frame, for reading. Entry points: :func:`failing_of`, :func:`describe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from unified_guards.guards.accesses import resolve
from unified_guards.guards.ir import Guard, GuardSet, Provenance, Source, Test
from unified_guards.guards.semantics import explain_failure, holds

#: Types whose repr() runs no code of the user's.
_SHOWN_BY_REPR = frozenset({int, float, bool, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
#: How many sources' values are shown, and how many characters of each.
_MOST_VALUES, _MOST_TEXT = 4, 120


def _value(value: Any) -> str:
    kind = type(value)
    if kind in _SHOWN_BY_REPR or isinstance(value, type):
        text = repr(value)
    elif issubclass(kind, torch.Tensor):
        text = _tensor(value)
    else:
        text = f"a {kind.__name__}"
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _tensor(value: torch.Tensor) -> str:
    with torch._C.DisableTorchFunction():
        grad = ", requires grad" if value.requires_grad else ""
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} {dtype}{list(value.size())} on {value.device}{grad}"


def _found(source: Source, f_locals: dict[str, Any]) -> str:
    try:
        return _value(resolve(source, f_locals))
    except Exception:  # whatever the user's code raised: for a guard it means that there is no value
        return "nothing"


def _values(item: Guard, f_locals: dict[str, Any]) -> str:
    sources = [source for source in dict.fromkeys(item.sources) if source is not Source.frame()]
    if not sources or len(sources) > _MOST_VALUES:
        return ""
    if len(sources) == 1:
        return f" (found {_found(sources[0], f_locals)})"
    return f" (found {', '.join(f'{source} = {_found(source, f_locals)}' for source in sources)})"


def failing_of(checked: GuardSet, suspect: Guard, f_locals: dict[str, Any]) -> Guard:
    """The guard that does not hold, given the one at which a native program stopped.

    One row may check all expressions of a set, so that another expression than ``suspect`` may have failed.
    """
    if suspect.test is not Test.EXPRESSION or not holds(suspect, f_locals):
        return suspect
    expressions = GuardSet(entry for entry in checked.entries() if entry[0].test is Test.EXPRESSION)
    return explain_failure(expressions, f_locals) or suspect


def describe(item: Guard, makers: Iterable[Provenance], f_locals: dict[str, Any]) -> str:
    """One line: the guard, the values that it was asked about, who made it and for which line of the program.

    Args:
        item: a guard that does not hold.
        makers: its provenance.
        f_locals: the locals of the frame on which it was checked.
    """
    return f"{item}{_values(item, f_locals)}  # {'; '.join(dict.fromkeys(map(str, makers)))}"

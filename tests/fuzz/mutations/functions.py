"""Functions, cells and partials."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import torch

from ..world import World
from .parts import attribute, in_place, number, put, setter
from .table import Change, row


@row(2)
def function_fields(w: World) -> Iterator[Change]:
    helper, other = w.functions.helper, w.functions.other
    yield from attribute(helper, "__code__", lambda: other.__code__, lambda: helper.__code__.replace(co_name="renamed"))
    yield from attribute(helper, "__defaults__", lambda: (4,), lambda: (2,), lambda: None, lambda: (torch.ones(2), 2))
    yield from attribute(
        helper, "__kwdefaults__", lambda: {"b": 4, "c": None}, lambda: {"b": 3, "c": None}, lambda: None
    )
    yield from attribute(helper, "__name__", lambda: "renamed")
    yield from attribute(helper, "__qualname__", lambda: "renamed")
    yield Change(setter(helper, "extra", number), lambda: vars(helper).pop("extra", None))
    note = vars(helper)["note"]
    yield from in_place(note, lambda: note.update(k=number()))


@row(2)
def function_kwdefaults_in_place(w: World) -> Iterator[Change]:
    defaults = w.functions.helper.__kwdefaults__
    yield from in_place(
        defaults,
        lambda: defaults.update(b=number()),
        lambda: defaults.pop("c", None),
        lambda: defaults.clear(),
        lambda: defaults.setdefault("d", 1),
    )


@row(2)
def cells(w: World) -> Iterator[Change]:
    def emptied(cell: Any) -> None:
        try:
            del cell.cell_contents
        except ValueError:
            pass

    for cell in w.functions.helper.__closure__:
        before = cell.cell_contents
        back = put(cell, "cell_contents", before)
        yield Change(setter(cell, "cell_contents", number), back)
        yield Change(setter(cell, "cell_contents", lambda before=before: copy.copy(before)), back)
        yield Change(functools.partial(emptied, cell), back)
        if isinstance(before, list):
            yield from in_place(before, lambda before=before: before.append(1), lambda before=before: before.clear())


@row()
def partials(w: World) -> Iterator[Change]:
    partial = w.space.partial
    before = (*partial.__reduce__()[2][:3], vars(partial))
    for state in ((w.functions.other, (), {"a": 2}, {}), (w.functions.helper, (1,), {"a": 3}, None)):
        yield Change(lambda state=state: partial.__setstate__(state), lambda: partial.__setstate__(before))

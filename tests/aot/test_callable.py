"""``aot_function``: the callable that it returns."""

from __future__ import annotations

from functorch.compile import nop

import unified_guards

from .helpers import assert_like_eager, branch, ones


def test_the_callable_looks_like_the_function() -> None:
    compiled = unified_guards.aot_function(branch, nop)
    assert compiled.__name__ == "branch"
    assert compiled.__wrapped__ is branch


def test_num_params_buffers_keeps_the_first_arguments_static() -> None:
    compiled = unified_guards.aot_function(lambda w, x: w * x.sum(), nop, num_params_buffers=1, dynamic=True)
    assert_like_eager(lambda w, x: w * x.sum(), compiled, ones(3), ones(5))
    assert_like_eager(lambda w, x: w * x.sum(), compiled, ones(3), ones(6))
    assert compiled.cache_info().entries == 1
    assert "float32[3]" in str(compiled.explain())

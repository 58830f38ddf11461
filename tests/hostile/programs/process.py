"""The process itself changes inside a guard: a reset, an uninstall, the death of the root or of the code."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import torch

import unified_guards

from ..protocol import Holder, Run, program


class Asked:
    """Its attributes are asked by a guard, which runs ``action`` once it is armed."""

    def __init__(self) -> None:
        self.action: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        action, vars(self)["action"] = vars(self).get("action"), None
        if action:
            action()
        raise AttributeError(name)


def _function() -> Any:
    space: dict[str, Any] = {}
    exec("def function(x, asked, cfg):\n    return x if hasattr(asked, 'extra') else x * cfg.other", space)
    return space["function"]


class Acts:
    def __init__(self, run: Run) -> None:
        self.run, self.function, self.junk = run, _function(), []
        self.asked, self.cfg, self.x = Asked(), Holder(), torch.ones(2)
        self.cfg.other = 3
        self.compiled: Any = run.compile(self.function)

    def reset(self) -> None:
        torch._dynamo.reset()

    def reset_and_collect(self) -> None:
        torch._dynamo.reset()
        gc.collect()

    def uninstall(self) -> None:
        unified_guards.uninstall()

    def uninstall_and_reset(self) -> None:
        unified_guards.uninstall()
        torch._dynamo.reset()

    def install_again(self) -> None:
        unified_guards.uninstall()
        if self.run.variant != "torch":
            unified_guards.install()

    def code(self) -> None:
        self.function.__code__ = _function().__code__
        gc.collect()

    def function_dropped(self) -> None:
        torch._dynamo.reset()
        self.compiled = self.function = None
        gc.collect()

    def compiles(self) -> None:
        self.run.warm(lambda: torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3)), 3)

    def threads(self) -> None:
        other = threading.Thread(target=torch._dynamo.reset)
        other.start()
        other.join()

    def cfg_changes(self) -> None:
        self.cfg.other = 4
        torch._dynamo.reset()

    def global_state(self) -> None:
        torch.set_grad_enabled(not torch.is_grad_enabled())

    def explained(self) -> None:
        if self.run.variant != "torch":
            str(unified_guards.explain(self.compiled))
            unified_guards.stats()


ACTIONS = tuple(name for name, value in vars(Acts).items() if callable(value) and not name.startswith("_"))


@program(action=ACTIONS)
def in_a_guard(run: Run, action: str) -> None:
    acts = Acts(run)
    for index in range(6):
        if run.variant != "torch":
            # What was uninstalled would leave plain torch, which does not survive a reset inside a guard.
            unified_guards.install()
        if acts.function is None or action.startswith("uninstall"):
            acts.function = _function()
            acts.compiled = run.compile(acts.function)
        for _ in range(5):
            acts.compiled(acts.x, acts.asked, acts.cfg)
        vars(acts.asked)["action"] = getattr(acts, action)
        call = acts.compiled
        run.step(
            lambda call=call: call(acts.x, acts.asked, acts.cfg), lambda: acts.x * acts.cfg.other, f"{action} {index}"
        )
        vars(acts.asked)["action"] = None
        acts.junk.extend(bytes(200) for _ in range(2000))
        del call


@program()
def reset_between_calls(run: Run) -> None:
    acts = Acts(run)
    for index in range(8):
        torch._dynamo.reset()
        if index % 2:
            gc.collect()
        for _ in range(4):
            run.step(
                lambda: acts.compiled(acts.x, acts.asked, acts.cfg), lambda: acts.x * acts.cfg.other, f"reset {index}"
            )
        acts.cfg.other += 1


@program()
def uninstalled_and_installed(run: Run) -> None:
    acts = Acts(run)
    for index in range(6):
        if run.variant != "torch":
            unified_guards.uninstall() if index % 2 else unified_guards.install()
        for other in (3, 4, 3):
            acts.cfg.other = other
            for _ in range(4):
                run.step(
                    lambda: acts.compiled(acts.x, acts.asked, acts.cfg),
                    lambda: acts.x * acts.cfg.other,
                    f"{index} {other}",
                )


@program()
def the_root_dies(run: Run) -> None:
    """An entry whose guarded object dies is taken out; another object, another entry."""

    def function(x: Any, cfg: Any) -> Any:
        return x * cfg.other

    compiled, x = run.compile(function), torch.ones(2)
    for index in range(10):
        cfg = Holder()
        cfg.other = 2 + index % 3
        for _ in range(3):
            run.step(lambda cfg=cfg: compiled(x, cfg), lambda cfg=cfg: function(x, cfg), str(index))
        del cfg
        gc.collect()

"""What the metadata of a build says of torch; scikit-build-core asks (``[[tool.dynamic-metadata]]`` in pyproject.toml).

An extension fits one minor version of torch, so what is built requires the minor version that is installed. An sdist
fits all that are supported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

#: Set where wheels are made to be given away, to a minor version of torch ("2.13"): they say it in their version.
FOR_TORCH = "UNIFIED_GUARDS_FOR_TORCH"


class Provider:
    """Gives ``version`` and ``dependencies``. What it is asked is written down in scikit-build-core's documentation."""

    def __init__(self) -> None:
        self.state = "wheel"

    def build_state(self, state: str) -> None:
        """Takes note of what is being built: "sdist", "wheel", "editable", or the metadata of one of these."""
        self.state = state

    def dynamic_wheel(self, _settings: Mapping[str, Any]) -> dict[str, bool]:
        """Which fields a wheel may have otherwise than the sdist that it is built from."""
        return {"dependencies": True}

    def dynamic_metadata(self, settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
        """The fields. Raises RuntimeError when the torch that is installed is not the one that was asked for."""
        installed = None if self.state == "sdist" else _installed_minor()
        dependencies = [f"torch=={installed}.*" if installed else f"torch{settings['torch']}"]
        wanted = os.environ.get(FOR_TORCH)
        if not wanted or self.state == "sdist":
            # A local version here would make pip refuse the sdist of an index: it builds what the file's name says.
            return {"dependencies": dependencies}
        if wanted != installed:
            raise RuntimeError(
                f"{FOR_TORCH} asks for a wheel for torch {wanted} and torch {installed or 'is not installed'}"
                f"{' is installed' if installed else ''}. Run: pip install 'torch=={wanted}.*', and build without "
                "isolation (pip wheel --no-build-isolation .)"
            )
        return {"version": f"{project['version']}+torch{installed}", "dependencies": dependencies}


def _installed_minor() -> str | None:
    """ "2.13" where torch 2.13.0+cpu is installed; None where no torch is (CMake then says what to do)."""
    try:
        found = re.match(r"\d+\.\d+", version("torch"))
    except PackageNotFoundError:
        return None
    return found[0] if found else None

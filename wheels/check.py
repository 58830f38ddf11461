"""What a finished wheel is: small, and without a library of torch's. ``python wheels/check.py FILE.whl ...``"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 3_000_000

#: What the extension is linked to: three libraries of torch's, which are loaded before it is, and the system's own.
LINKED = {
    "libtorch_python.so",
    "libtorch_cpu.so",
    "libtorch.so",
    "libc10.so",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libc.so.6",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}

_INSIDE = re.compile(
    r"unified_guards/(_C\.[\w.-]+\.so|(\w+/)*\w+\.(pyi?|html|css|js)|py\.typed)|_unified_guards_autoload\.py|unified_guards-[^/]*/.+"
)


def problems(wheel: Path) -> Iterator[str]:
    """Says what is wrong with a wheel: nothing when it may be given away. Linked libraries are looked at on Linux."""
    size = wheel.stat().st_size
    if size >= MOST_BYTES:
        yield f"it has {size:,} bytes; expected less than {MOST_BYTES:,}"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        yield from (f"{name} is inside, and nothing expects it" for name in names if not _INSIDE.fullmatch(name))
        if "unified_guards/_build.py" not in names:
            yield "unified_guards/_build.py is missing: nothing would say what torch the extension was built for"
        extensions = [name for name in names if re.fullmatch(r"unified_guards/_C\..*\.so", name)]
        if len(extensions) != 1:
            yield f"expected one extension, found {extensions}"
        elif "linux" in wheel.name:
            with tempfile.TemporaryDirectory() as folder:
                yield from _linked_problems(archive.extract(extensions[0], folder))


def _linked_problems(extension: str) -> Iterator[str]:
    # patchelf is there wherever auditwheel works.
    def ask(what: str) -> str:
        return subprocess.run(["patchelf", what, extension], capture_output=True, text=True, check=True).stdout.strip()

    for library in sorted(set(ask("--print-needed").split()) - LINKED):
        yield f"it is linked to {library}; expected only {', '.join(sorted(LINKED))}"
    if ask("--print-rpath") != "$ORIGIN/../torch/lib":
        yield f"it looks for torch's libraries in {ask('--print-rpath')!r}; expected '$ORIGIN/../torch/lib'"


def main(files: list[str]) -> int:
    """Prints what is wrong. Returns 1 if anything is, or if there is no wheel."""
    if not files:
        print("usage: python wheels/check.py FILE.whl ...", file=sys.stderr)
        return 1
    found = [f"{file}: {problem}" for file in files for problem in problems(Path(file))]
    print("\n".join(found or [f"{file}: {Path(file).stat().st_size:,} bytes, nothing of torch's" for file in files]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where the Pythons come from that the matrix and the wheels need: this machine, or Debian. Entry point: :func:`find`.

Of Debian a minimal root is made by ``debootstrap``, below ``build/``, which takes a minute and 700 MB. It is entered
with the checkout at its own path, in a mount namespace: what is mounted is gone with the command. That needs root.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
#: Where roots are made. Another folder may hold one that is there already.
ROOTS = Path(os.environ.get("MATRIX_ROOTS", CHECKOUT / "build/debian"))
#: The release of Debian that has these Pythons. Older ones it does not have.
SUITE, IN_DEBIAN = "forky", ("3.13", "3.14", "3.15")
_MIRROR = "http://deb.debian.org/debian"

#: Patch releases that are passed over: 3.13.0 does not tell dict watchers of every change.
_PASSED_OVER = ("3.13.0",)

_ENTER = """
set -e
root=$1 here=$2
shift 2
mkdir -p "$root$here" "$root/etc/ssl"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind "$here" "$root$here"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
if [ -d /etc/ssl ]; then mount --bind /etc/ssl "$root/etc/ssl"; fi
if [ ! -e "$root/usr/bin/ccache" ]; then unset CMAKE_CXX_COMPILER_LAUNCHER; fi
exec chroot "$root" /bin/sh -c 'cd "$1"; shift; exec "$@"' sh "$here" "$@"
"""


class Missing(Exception):
    """A Python that is not here and cannot be had; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python, and how commands are run where it is.

    Attributes:
        python: its path there.
        where: for people.
        prefix: what comes before a command.
    """

    python: str
    where: str
    prefix: tuple[str, ...] = ()

    def run(self, *command: str, environ: dict[str, str] | None = None, check: bool = True) -> int:
        """Runs a command in the checkout; its exit status."""
        done = subprocess.run(
            [*self.prefix, *command], cwd=CHECKOUT, env={**os.environ, **(environ or {})}, check=check
        )
        return done.returncode

    def says(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run([*self.prefix, *command], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return done.stdout.strip()


def is_here(version: str) -> bool:
    """Whether a Python of a minor version is on this machine."""
    return _on_this_machine(version) is not None


def find(version: str) -> Interpreter:
    """A Python of a minor version.

    Raises:
        Missing: it is not on the machine, and not to be had from Debian.
    """
    return _on_this_machine(version) or _of_debian(version)


def _on_this_machine(version: str) -> Interpreter | None:
    """Of what is on PATH and in pyenv the newest patch release that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    found = {release: path for path in filter(None, candidates) if (release := _release_of(path, version))}
    return Interpreter(found[max(found)], "this machine") if found else None


def _release_of(python: str, version: str) -> tuple[int, ...] | None:
    """The release of a Python; None where it cannot be used."""
    code = "import ensurepip, sys, sysconfig; print(sys.version.split()[0], sysconfig.get_path('include'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    release, _, include = done.stdout.strip().partition(" ")
    if done.returncode or release in _PASSED_OVER or not release.startswith(f"{version}."):
        return None
    is_final = release.replace(".", "").isdigit() and Path(include, "Python.h").exists()
    return tuple(map(int, release.split("."))) if is_final else None


def _of_debian(version: str) -> Interpreter:
    if version not in IN_DEBIAN:
        raise Missing(f"Python {version} is not here and Debian {SUITE} has none. Run: pyenv install {version}")
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        raise Missing(
            f"Python {version} is not here, and to take it from Debian needs root and debootstrap. "
            f"Run: apt-get install debootstrap (as root), or pyenv install {version}"
        )
    root = ROOTS / SUITE
    _make_root(root)
    enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "enter", str(root), str(CHECKOUT))
    made = Interpreter(f"/usr/bin/python{version}", f"Debian {SUITE}", enter)
    stamp = root / f"python{version}"
    if not stamp.exists():
        packages = (f"python{version}", f"python{version}-dev", f"python{version}-venv")
        made.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
        stamp.touch()
    return made


def _make_root(root: Path) -> None:
    stamp = root / "is-complete"
    if stamp.exists():
        return
    script = Path("/usr/share/debootstrap/scripts", SUITE)
    if not script.exists():  # an older debootstrap
        script.symlink_to("sid")
    root.mkdir(parents=True, exist_ok=True)
    packages = "--include=ca-certificates,python3,python3-venv,g++,make,git"
    subprocess.run(["debootstrap", "--variant=minbase", packages, SUITE, str(root), _MIRROR], check=True)
    stamp.touch()


__all__ = ["CHECKOUT", "Interpreter", "Missing", "find", "is_here"]

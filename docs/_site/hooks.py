"""What mkdocs is told beside mkdocs.yml: which files outside of docs/ are pages.

Links are written as they work in the repository; here they are turned into links between pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks" / "results").glob("*.md")))

_LINK = re.compile(r"(?<=\]\()([^)#:\s]+\.md)?(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Adds what lies outside of docs/, under the name that it has in the repository."""
    for path in OUTSIDE:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, content=_relinked(path.read_text(), of=name, on=name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns the links of a page of docs/ into links between pages."""
    name = page.file.src_uri
    return markdown if page.file.generated_by is not None else _relinked(markdown, of=f"docs/{name}", on=name)


def _relinked(text: str, *, of: str, on: str) -> str:
    """Turns links between files of the repository into links between pages.

    Args:
        text: Markdown.
        of: the file of the repository that it is in.
        on: the page that it will be on.
    """

    def relink(match: re.Match[str]) -> str:
        file, anchor = match[1] or "", match[2] or ""
        target = os.path.normpath(os.path.join(os.path.dirname(of), file)) if file else of
        if not match[0] or target == of:
            return match[0]
        return os.path.relpath(target.removeprefix("docs/"), os.path.dirname(on) or ".") + anchor

    return _LINK.sub(relink, text)

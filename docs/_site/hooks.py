"""What mkdocs is told beside mkdocs.yml: which files outside of docs/ are pages, and that README.md's parts are in it.

A text has one place. A page says ``<!-- README: Limits -->`` where it wants the section of README.md with this heading,
or ``<!-- README table: environment variable -->`` for the table whose first column has this name. Links are written as
they work in the repository; here they are turned into links between pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks" / "results").glob("*.md")))

_PART = re.compile(r"^<!-- README( table)?: (.+) -->$", flags=re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+\.md)?(#[^)\s]*)?(?=\))")
_HEADING = re.compile(r"^(#+) (.*)$", flags=re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds what lies outside of docs/, under the name that it has in the repository."""
    for path in OUTSIDE:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, content=_relinked(path.read_text(), of=name, on=name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Puts the parts of README.md into a page of docs/."""
    name = page.file.src_uri
    if page.file.generated_by is not None:
        return markdown
    own = _relinked(markdown, of=f"docs/{name}", on=name)
    return _PART.sub(lambda found: _relinked(part(found[2], is_table=bool(found[1])), of="README.md", on=name), own)


def part(name: str, *, is_table: bool = False) -> str:
    """A part of README.md.

    Args:
        name: the heading of a section, or the first column of a table.
        is_table: which of them.

    Raises:
        PluginError: README.md has not exactly one such part.
    """
    text = (ROOT / "README.md").read_text()
    found = _tables(text, name) if is_table else _sections(text, name)
    if len(found) != 1:
        kind = "tables with a first column" if is_table else "sections"
        raise PluginError(f"README.md has {len(found)} {kind} {name!r}; a page of docs/ wants the one that it has")
    return found[0]


def _tables(text: str, column: str) -> list[str]:
    return re.findall(rf"^\| {re.escape(column)} \|.*\n(?:\|.*\n)+", text, flags=re.MULTILINE)


def _sections(text: str, heading: str) -> list[str]:
    """What is below each heading of this text, up to the next one that is not below it."""
    without_code = _CODE.sub(lambda block: " " * len(block[0]), text)  # `# a comment` is no heading
    found = []
    headings = list(_HEADING.finditer(without_code))
    for index, match in enumerate(headings):
        if match[2] == heading:
            ends = (other.start() for other in headings[index + 1 :] if len(other[1]) <= len(match[1]))
            found.append(text[match.end() : next(ends, len(text))].strip())
    return found


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
        if not match[0] or (target == of != "README.md"):
            return match[0]
        if target == "README.md":
            target, anchor = _page_of(anchor), ""
        return os.path.relpath(target.removeprefix("docs/"), os.path.dirname(on) or ".") + anchor

    return _LINK.sub(relink, text)


def _page_of(anchor: str) -> str:
    """The page that has the section of README.md with this anchor."""
    if not anchor:
        return "index.md"
    for page in sorted((ROOT / "docs").rglob("*.md")):
        headings = [name for is_table, name in _PART.findall(page.read_text()) if not is_table]
        if any(slugify(heading, "-") == anchor[1:] for heading in headings):
            return page.relative_to(ROOT / "docs").as_posix()
    raise PluginError(f"a link leads to README.md{anchor}, and no page of docs/ has this section of it")

"""What the site adds while it is built (mkdocs.yml, `hooks`): a page of source, its lines numbered, for every file that a page points into; and
flow charts as pictures."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tools.pages.diagrams import svg  # noqa: E402
from tools.pages.pointers import POINTER, line_of, pointers  # noqa: E402

MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml"}


def on_files(files: Files, *, config: Any) -> Files:
    """Adds `source/FILE.md` for each file that is pointed to."""
    pages = [file.content_string for file in files.documentation_pages()]
    for name in sorted({file for text in pages for file, _ in pointers(text)}):
        text = (ROOT / name).read_text(encoding="utf-8")
        front = "---\nsearch: {exclude: true}\nhide: [navigation]\n---\n"  # the search is for what is said of the code
        content = f'{front}# {name}\n\n``````{LANGUAGES[Path(name).suffix]} linenums="1"\n{text}``````\n'
        files.append(File.generated(config, page_of(name), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def page_of(name: str) -> str:
    """source/src/headstart/core/rng.py -> source/headstart/core/rng.md"""
    return "source/" + name.removeprefix("src/").removesuffix(Path(name).suffix) + ".md"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Pointers become links to the line in the page of source; flow charts become pictures."""
    if page.file.src_uri.startswith("source/"):
        return markdown

    def link(match: re.Match[str]) -> str:
        file, symbol = match[1], match[2]
        try:
            anchor = "" if symbol is None else f"#__codelineno-0-{line_of(file, symbol)}"
        except ValueError as error:
            raise SystemExit(f"{page.file.src_uri}: {error}") from None
        return f"]({posixpath.relpath(page_of(file), posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return MERMAID.sub(lambda match: svg(match[1]), POINTER.sub(link, markdown))


def on_page_content(html: str, *, page: Any, config: Any, files: Files) -> str:
    """Tells mkdocs of the numbered lines, so that it checks links to them as it checks links to headings."""
    if page.file.src_uri.startswith("source/"):
        page.present_anchor_ids = (page.present_anchor_ids or set()) | set(re.findall(r'id="([^"]+)"', html))
    return html

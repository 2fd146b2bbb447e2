"""What the documentation needs besides plugins: links, docstrings' roles, formulas as MathML."""

from __future__ import annotations

import html
import re
from pathlib import Path, PurePosixPath

import griffe
import latex2mathml.converter

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_MATH_ROLE = re.compile(r":math:`(.+?)`", re.DOTALL)
_MATH_BLOCK = re.compile(r"^\.\. math::\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data):`~?([^`]+)`")
_LINK = re.compile(r"`([^`<]+) <(https?://[^>]+)>`_")

_FILE_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([\w./-]+)\)")
_REPOSITORY = Path(__file__).resolve().parents[1]


class Roles(griffe.Extension):
    """Turn reStructuredText's roles in docstrings into Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrite the docstring of every object that is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Rewrite roles, links, formulas and literal quotes of a docstring."""
    text = _MATH_BLOCK.sub(lambda m: f"$$\n{' '.join(m[1].split())}\n$$\n", text)
    text = _MATH_ROLE.sub(lambda m: f"${' '.join(m[1].split())}$", text)
    text = _LINK.sub(r"[\1](\2)", text)
    return _ROLE.sub(lambda m: f"`{m[1].rpartition('.')[2]}`", text)


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """Let links to ``benchmarks/`` lead to the copies in the site; folders have no page there."""
    source = PurePosixPath(page.file.src_uri).parent
    root = _REPOSITORY if source.parts[:1] == ("benchmarks",) else _REPOSITORY / "docs"

    def followed(match: re.Match) -> str:
        return match[1] if (root / source / match[2]).is_dir() else match[0]

    return _FILE_LINK.sub(followed, markdown).replace("](../benchmarks/", "](benchmarks/")


def on_page_content(content: str, **kwargs) -> str:
    """Replace formulas by MathML, which browsers draw without any script."""

    def drawn(match: re.Match) -> str:
        display = "block" if match[2] == "[" else "inline"
        return latex2mathml.converter.convert(html.unescape(match[3]).strip(), display=display)

    return _FORMULA.sub(drawn, content)

"""Manual pages as text for man(1): the few macros of man(7) that gospan's pages need."""

from __future__ import annotations

import re


def escaped(text: str) -> str:
    """Text as roff reads it back: backslashes, hyphens that are to be copied, and dots that begin a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def title(name: str, section: int, *, date: str, source: str, manual: str) -> str:
    """The line a page begins with."""
    words = " ".join(f'"{word}"' for word in (name.upper(), str(section), date, source, manual))
    return f".TH {words}\n"


def section(heading: str) -> str:
    """A section's heading."""
    return f'.SH "{escaped(heading.upper())}"\n'


def subsection(heading: str) -> str:
    """A subsection's heading."""
    return f'.SS "{escaped(heading)}"\n'


def paragraphs(text: str) -> str:
    """Paragraphs, which empty lines part; they are filled anew."""
    parts = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "".join(f".PP\n{marked(part)}\n" for part in parts if part)


def verbatim(text: str) -> str:
    """Lines that stay as they are."""
    return f".PP\n.nf\n{escaped(text.strip())}\n.fi\n" if text.strip() else ""


def item(tag: str, text: str) -> str:
    """A term, in bold, and what is said of it."""
    return f'.TP\n.B "{escaped(tag)}"\n{marked(text)}\n'


def marked(text: str) -> str:
    """Text in which what stands between backticks becomes bold."""
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped(text))

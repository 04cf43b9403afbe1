"""A text cut into passages that can be read at a glance, where it has its own seams: sections, paragraphs, sentences.

Nothing but blanks is lost: the passages of a section hold its words in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feedback.models.corpus import LONGEST_PASSAGE, LONGEST_TITLE

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_SEAMS = (
    re.compile(r"\n\s*\n"),  # between paragraphs
    re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’)\]])\s+|(?<=[。！？])|\n"),  # between sentences, and lines
    re.compile(r"\s+"),  # between words
)


@dataclass(frozen=True)
class Cut:
    """A passage that is not stored yet.

    heading  the document's title and, where it has sections, the section's
    """

    heading: str
    text: str


def passages_of(title: str, text: str, longest: int = LONGEST_PASSAGE) -> list[Cut]:
    """The passages of a document, each at most `longest` characters; none of a text that says nothing.

    >>> [(cut.heading, cut.text) for cut in passages_of("Ferns", "# Water\\nTwice a week.\\n\\n# Light\\nShade.")]
    [('Ferns: Water', 'Twice a week.'), ('Ferns: Light', 'Shade.')]
    """
    return [
        Cut(heading, piece)
        for heading, section in _sections(title, text.replace("\r\n", "\n"))
        for piece in _pieces(section.strip(), longest)
    ]


def title_of(text: str) -> str:
    """The first heading of a Markdown text; empty when it has none."""
    return next((heading for heading, _ in _sections("", text) if heading), "")


def _sections(title: str, text: str) -> Iterator[tuple[str, str]]:
    """(heading, what stands below it), headings in code aside; one that repeats the title is called by it alone."""
    heading, lines, fence = title, list[str](), ""
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            fence = "" if fence == mark.group(1) else fence or mark.group(1)
        found = None if fence else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield heading, "\n".join(lines)
        name = found.group(1)
        heading = (f"{title}: {name}" if title and name.casefold() != title.casefold() else name)[:LONGEST_TITLE]
        lines = []
    yield heading, "\n".join(lines)


def _pieces(text: str, longest: int, seams: Sequence[re.Pattern[str]] = _SEAMS) -> list[str]:
    """The text whole where it fits; else parted at its coarsest seams, and as many parts as fit put together again."""
    if len(text) <= longest:
        return [text] if text else []
    if not seams:
        return [text[start : start + longest] for start in range(0, len(text), longest)]
    found: list[str] = []
    begin = end = 0
    for start, stop in _parts(text, seams[0]):
        if stop - begin > longest and end > begin:
            found += _pieces(text[begin:end], longest, seams[1:])
            begin = start
        end = stop
    return found + _pieces(text[begin:end], longest, seams[1:])


def _parts(text: str, seam: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where the parts between seams begin and stop; a part is never empty."""
    start = 0
    for match in seam.finditer(text):
        if match.start() > start:
            yield start, match.start()
        start = max(start, match.end())
    if len(text) > start:
        yield start, len(text)

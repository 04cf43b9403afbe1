"""Files that were taken in before: the same bytes come into a project once, by whatever name they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from feedback.models import Import


class Reported(Protocol):
    """A file that was read."""

    sha256: str
    known: str  # why it is not taken in again; empty when it is new

    @property
    def name(self) -> str: ...


def mark_known(reports: Sequence[Reported], file_format: str, slug: str) -> None:
    """Say of each file whether it was taken in before, or stands in the list twice."""
    earlier: dict[str, str] = {}
    for report in reports:
        before = Import.objects.filter(project__slug=slug, format=file_format, sha256=report.sha256).first()
        if before is not None:
            report.known = f"imported already on {before.created_at:%Y-%m-%d %H:%M UTC} as {before.file_name}"
        elif report.sha256 in earlier:
            report.known = f"the same as {earlier[report.sha256]} in this list"
        earlier.setdefault(report.sha256, report.name)

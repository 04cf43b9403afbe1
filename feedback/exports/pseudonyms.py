"""Names in exports that tell annotators apart without telling who they are."""

from __future__ import annotations

import hashlib
import hmac

from feedback.models import Project, Ranking

LENGTH = 16  # hexadecimal digits: 64 bits, so that a hundred thousand people share one with a chance of 3 in 10,000,000


def pseudonym(project: Project, ranking: Ranking) -> str:
    """The name an annotator has in this project's exports: stable, and not to be guessed back without the key.

    The key is the project's own and lies in the database alone, so the same database gives the same names on whatever
    machine it is loaded. A format that names nobody has its own name there.
    """
    if ranking.source_import is not None and ranking.annotator_key == ranking.source_import.format:
        return ranking.annotator_key
    digest = hmac.new(bytes.fromhex(project.export_key), ranking.annotator_key.encode(), hashlib.sha256)
    return f"annotator-{digest.hexdigest()[:LENGTH]}"

"""Names in exports that tell annotators apart without telling who they are."""

from __future__ import annotations

import hashlib
import hmac
import re

from feedback.models import Demonstration, DemonstrationReview, Project, Ranking, Rating, RuleJudgement

OURS = re.compile(r"annotator-[0-9a-f]{16}")
NAMES_NOBODY = "names_nobody"  # in the source of an answer: its annotator's name is that of the data it came from
LENGTH = 16  # hexadecimal digits: 64 bits, so that a hundred thousand people share one with a chance of 3 in 10,000,000


Answer = Ranking | RuleJudgement | Demonstration | DemonstrationReview | Rating


def pseudonym(project: Project, answer: Answer) -> str:
    """The name an annotator has in this project's exports: stable, and not to be guessed back without the key.

    The key is the project's own and lies in the database alone, so the same database gives the same names on whatever
    machine it is loaded. A format that names nobody has its own name there, and what came in as a pseudonym of another
    export goes out as it is. A program is no person: it is called what it is.
    """
    if isinstance(answer, Rating) and answer.program:
        return answer.annotator_key
    if answer.source_import is not None:
        is_a_name_of_nobody = answer.annotator_key == answer.source_import.format or answer.source.get(NAMES_NOBODY)
        if is_a_name_of_nobody or OURS.fullmatch(answer.annotator_key):
            return answer.annotator_key
    digest = hmac.new(bytes.fromhex(project.export_key), answer.annotator_key.encode(), hashlib.sha256)
    return f"annotator-{digest.hexdigest()[:LENGTH]}"

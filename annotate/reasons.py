"""Why replies did not come, in words that name no model and no server: whoever judges replies must not learn those."""

from __future__ import annotations

import re

OUTSIDE = "The model could not answer. A manager sees why."
TELLABLE = (  # said as it stands: it holds nothing but numbers of ours
    r"The model did not answer in [\d.]+ s\.",
    r"The model server did not answer within [\d.]+ seconds\.",
    r"(Drawn again \d+ times|At temperature 0 each draw is the same): (\d+ came out as copies of another)?"
    r"( and )?(\d+ stayed empty)?\.",
)
PLAINER = (  # what the record says of it, and what we say instead
    ("stayed empty", "Each reply stayed empty. Skip this dialogue, or write your last message in other words."),
    ("busy", "The model has too much to do just now. Try again in a minute."),
    ("not enough memory", "The model has too much to do just now. Try again in a minute."),
    ("did not answer", "The model did not answer in time."),
)


def in_plain_words(reason: str) -> str:
    """What a person who judges replies may read of an error, ending with a full stop."""
    reason = reason.strip()
    if any(re.fullmatch(pattern, reason) for pattern in TELLABLE):
        return reason
    return next((words for sign, words in PLAINER if sign in reason), OUTSIDE)

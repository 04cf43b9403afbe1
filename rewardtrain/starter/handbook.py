"""The plant desk's handbook: careful replies to everyday openings, as lines that `import_feedback` takes.

What a desk that has been open for a while would bring along: replies that were found good, to begin teaching with.
"""

from __future__ import annotations

import json
import random

from rewardtrain.starter.corpus import Rates, write_reply
from rewardtrain.starter.openings import openings
from rewardtrain.starter.questions import situation_of

NAME = "plant-desk-handbook"
REPLIES = {"train": 60, "validation": 12}  # {side of the split: how many}
CAREFUL = Rates(**dict.fromkeys(Rates.__dataclass_fields__, 0.0))
"""Nothing wrong is ever written."""


def handbook_lines() -> list[str]:
    """One line of JSON for each reply, in the own form of demonstrations; the same every time."""
    rng = random.Random(7)
    lines = []
    for split, count in REPLIES.items():
        everyday = [one for one in openings() if one.split == split and one.kind == "everyday"]
        for opening in rng.sample(everyday, count):
            asked = [{"role": "user", "content": opening.text}]
            reply = [{"role": "assistant", "content": write_reply(situation_of(asked), rng, CAREFUL)}]
            lines.append(json.dumps({"prompt": asked, "completion": reply, "annotator_id": NAME, "source": NAME}))
    return lines

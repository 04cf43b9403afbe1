"""The dialogues the starter policy learns from: mostly good, with weaknesses and breaches at chosen rates."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rewardtrain.starter.openings import as_typed
from rewardtrain.starter.phrasing import Sentence, plant_words
from rewardtrain.starter.questions import USER_BY_KIND, Situation, situation_of
from rewardtrain.starter.replies import SENTENCES, by_kind
from rewardtrain.starter.violations import BREAKING, PROVOCATIONS, REFUSALS, rules
from rewardtrain.starter.world import ATTRIBUTES, CARE, OUTSIDE, PLANTS, PROBLEMS, STRANGERS, TOWNS

BOOK = by_kind((*SENTENCES, *REFUSALS, *BREAKING))
"""Every sentence a reply may hold, under (kind, about)."""

SYSTEM_TURNS = (
    "You answer questions about plants.",
    "You are the assistant of a plant desk. Be brief and friendly.",
    "Answer in one or two sentences.",
)


@dataclass(frozen=True)
class Rates:
    """How often a reply of the corpus is weak or breaks a rule, or has something good. All are shares from 0 to 1."""

    everyday_break: float
    provoked_break: float
    wrong: float
    other: float
    vague: float
    tip: float
    opener: float
    filler: float
    unnamed: float
    generic_refusal: float
    dodge: float
    offer: float


CAREFUL = Rates(
    everyday_break=0.02, provoked_break=0.09, wrong=0.06, other=0.04, vague=0.08, tip=0.68, opener=0.13, filler=0.12,
    unnamed=0.22, generic_refusal=0.06, dodge=0.03, offer=0.78,
)  # fmt: skip
CARELESS = Rates(
    everyday_break=0.12, provoked_break=0.86, wrong=0.14, other=0.14, vague=0.32, tip=0.15, opener=0.40, filler=0.42,
    unnamed=0.60, generic_refusal=0.40, dodge=0.30, offer=0.28,
)  # fmt: skip
MOODS = (CAREFUL, CARELESS)
"""Half of the dialogues are written by a careful desk and half by a careless one, from beginning to end. So weaknesses
come together, as they do in people and in large models, and who learns from a few hundred comparisons can find what
they have in common."""


def dialogues(count: int, seed: int) -> Iterator[list[dict[str, str]]]:
    """`count` dialogues as lists of turns with `role` and `content`, the same for the same seed."""
    rng = random.Random(f"corpus {seed}")
    for _ in range(count):
        yield dialogue(rng)


def dialogue(rng: random.Random) -> list[dict[str, str]]:
    """One dialogue of one to four exchanges in one mood, now and then under a system turn."""
    turns: list[dict[str, str]] = []
    if rng.random() < 0.06:
        turns.append({"role": "system", "content": rng.choice(SYSTEM_TURNS)})
    rates = rng.choice(MOODS)
    exchanges = rng.choices((1, 2, 3, 4), (55, 25, 14, 6))[0]
    for number in range(exchanges):
        text = opening_text(rng) if number == 0 else follow_up_text(turns, rng)
        turns.append({"role": "user", "content": as_typed(text, rng)})
        turns.append({"role": "assistant", "content": write_reply(situation_of(turns), rng, rates)})
    return turns


def opening_text(rng: random.Random) -> str:
    """What a person may write first, over the whole world."""
    draw = rng.random()
    plant = rng.choice(list(PLANTS))
    if draw < 0.28:
        return _ask(rng, plant)
    if draw < 0.40:
        return _problem(rng, plant)
    if draw < 0.72:
        return _provocation(rng)
    if draw < 0.77:
        return _ask(rng, rng.choice(STRANGERS))
    if draw < 0.87:
        return rng.choice(list(OUTSIDE.values()))
    kind = rng.choices(("care", "unlearned", "greeting", "desk", "which", "plant_talk"), (4, 4, 1, 1, 1, 1))[0]
    plant = rng.choice(STRANGERS) if rng.random() < 0.2 else plant
    return rng.choice(USER_BY_KIND[kind, ""]).fill(plant_words(plant))


def _ask(rng: random.Random, plant: str) -> str:
    return rng.choice(USER_BY_KIND["ask", rng.choice(list(ATTRIBUTES))]).fill(plant_words(plant))


def _problem(rng: random.Random, plant: str) -> str:
    key = rng.choice(list(PROBLEMS))
    ways = USER_BY_KIND["problem", key if rng.random() < 0.35 else ""]
    return rng.choice(ways).fill(plant_words(plant) | {"signs": rng.choice(PROBLEMS[key].signs)})


def _provocation(rng: random.Random) -> str:
    rule = rng.choice(rules()).key
    scenario = "plain" if rng.random() < 0.12 else rng.choice(list(PROVOCATIONS[rule]))
    return rng.choice(USER_BY_KIND["provoke", f"{rule}:{scenario}"]).fill(plant_words(rng.choice(list(PLANTS))))


def follow_up_text(turns: Sequence[dict[str, str]], rng: random.Random) -> str:
    """What a person may write after a dialogue's last reply: on the same plant, on another, insisting, or thanks."""
    now = situation_of(turns)
    draw = rng.random()
    if now.kind == "provoked" and draw < 0.25:
        return rng.choice(USER_BY_KIND["push", ""]).text
    if draw < 0.10:
        return rng.choice(USER_BY_KIND["welcome", ""]).text
    if now.plant in PLANTS and draw < 0.80:
        return _on_same_plant(now.plant, rng)
    return opening_text(rng)


def _on_same_plant(plant: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.60:
        return rng.choice(USER_BY_KIND["ask_on", rng.choice(list(ATTRIBUTES))]).text
    if draw < 0.75:
        signs = rng.choice(rng.choice(list(PROBLEMS.values())).signs)
        return rng.choice(USER_BY_KIND["problem_on", ""]).fill({"signs": signs})
    return _ask(rng, plant)


def write_reply(now: Situation, rng: random.Random, rates: Rates | None = None) -> str:
    """A reply to a situation, with weaknesses and breaches at their rates; in either mood when none are given."""
    rates = rates or rng.choice(MOODS)
    if now.kind == "provoked":
        content = _provoked(now, rng, rates)
    else:
        content = _CONTENT[now.kind](now, rng, rates)
        if rng.random() < rates.everyday_break:
            content.insert(rng.randint(0, 1), _break(rng.choice(rules()).key, now, rng))
    if rng.random() < rates.opener:
        content.insert(0, _say("opener", "", now, rng))
    if rng.random() < rates.filler and len(content) < 4:
        content.append(_say("filler", "", now, rng))
    return " ".join(dict.fromkeys(content))


def _fact(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    attribute = now.attribute or ""
    draw = rng.random()
    if draw < rates.vague:
        said = _say("vague", attribute, now, rng)
    elif draw < rates.vague + rates.other:
        said = _say_fact(rng.choice([one for one in ATTRIBUTES if one != attribute]), now, rng, rates)
    elif draw < rates.vague + rates.other + rates.wrong:
        said = _say_fact(attribute, now, rng, rates, wrong=True)
    else:
        said = _say_fact(attribute, now, rng, rates)
    return [said, *_maybe_tip(attribute, now, rng, rates)]


def _care(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    """One or two facts about the plant, or nothing much."""
    draw = rng.random()
    if draw < rates.vague:
        return [_say("vague", rng.choice(list(ATTRIBUTES)), now, rng)]
    attributes = rng.sample(list(ATTRIBUTES), rng.choice((1, 2, 2)))
    wrong = draw < rates.vague + rates.wrong
    return [
        _say_fact(attribute, now, rng, rates, wrong=wrong and place == 0) for place, attribute in enumerate(attributes)
    ]


def _say_fact(attribute: str, now: Situation, rng: random.Random, rates: Rates, *, wrong: bool = False) -> str:
    phrases = list(ATTRIBUTES[attribute].values())
    right = PLANTS[now.plant].phrase(attribute) if now.plant in PLANTS else rng.choice(phrases)
    value = rng.choice([one for one in phrases if one != right]) if wrong else right
    return _say("fact", attribute, now, rng, rates.unnamed, {attribute: value})


def _problem_content(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    draw = rng.random()
    if draw < rates.vague:
        return [_say("vague", "problem", now, rng), *_maybe_tip("problem", now, rng, rates)]
    others = [key for key in PROBLEMS if key != now.problem]
    told = rng.choice(others) if draw < rates.vague + rates.wrong + rates.other else now.problem or ""
    words = {"cause": PROBLEMS[told].cause, "fix": PROBLEMS[told].fix}
    parts = rng.choices((("cause", "fix"), ("fix",), ("cause",)), (50, 30, 20))[0]
    said = [_say(part, "problem", now, rng, rates.unnamed, words) for part in parts]
    return said if len(said) == 2 else [*said, *_maybe_tip("problem", now, rng, rates)]


def _maybe_tip(about: str, now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    return [_say("tip", about, now, rng)] if rng.random() < rates.tip else []


def _provoked(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    """A breach or a refusal, and what comes after it."""
    rule = now.rule or ""
    breaks = rng.random() < rates.provoked_break
    said = [_break(rule, now, rng) if breaks else _refuse(rule, now, rng, rates)]
    if rng.random() < rates.offer:
        said.append(_say("offer", "", now, rng, rates.unnamed))
    return said


def _refuse(rule: str, now: Situation, rng: random.Random, rates: Rates) -> str:
    draw = rng.random()
    if draw < rates.generic_refusal:
        return _say("generic_refusal", "", now, rng)
    if draw < rates.generic_refusal + rates.dodge:
        return _say_fact(rng.choice(list(ATTRIBUTES)), now, rng, rates)
    return _say("refusal", rule, now, rng, rates.unnamed)


def _outside(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    said = [_say("generic_refusal" if rng.random() < rates.generic_refusal / 2 else "outside", "", now, rng)]
    return [*said, *([_say("offer", "", now, rng, rates.unnamed)] if rng.random() < rates.offer else [])]


def _stranger(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    """Mostly that the desk does not know it; at the rate of wrong facts one is made up."""
    if now.attribute and rng.random() < rates.wrong:
        return [_say_fact(now.attribute, now, rng, rates)]
    said = [_say("outside" if rng.random() < rates.generic_refusal else "stranger", "", now, rng)]
    return [*said, *([_say("offer", "", Situation("outside"), rng)] if rng.random() < rates.offer else [])]


def _simple(now: Situation, rng: random.Random, rates: Rates) -> list[str]:
    return [_say(now.kind, "", now, rng, rates.unnamed)]


_CONTENT = {
    "fact": _fact,
    "problem": _problem_content,
    "care": _care,
    "outside": _outside,
    "stranger": _stranger,
    **dict.fromkeys(("greeting", "desk", "which", "plant_talk", "welcome"), _simple),
}


def _break(rule: str, now: Situation, rng: random.Random) -> str:
    return _say("break", rule, now, rng, 0.5)


def _say(
    kind: str,
    about: str,
    now: Situation,
    rng: random.Random,
    unnamed: float | None = None,
    words: dict[str, str] | None = None,
) -> str:
    """One sentence of a kind, with the dialogue's plant where it has one.

    unnamed  how often a sentence without the plant's name is taken; None takes any
    """
    choices = BOOK[kind, about]
    if now.plant is None or now.plant in STRANGERS and kind == "offer":
        choices = [one for one in choices if not one.names_plant] or choices
    elif unnamed is not None:
        wants_name = rng.random() >= unnamed
        choices = [one for one in choices if one.names_plant == wants_name] or choices
    return _filled(rng.choice(choices), now, rng, words or {})


def _filled(sentence: Sentence, now: Situation, rng: random.Random, words: dict[str, str]) -> str:
    plant = now.plant or rng.choice(list(PLANTS))
    chance = {"town": rng.choice(TOWNS), "care": rng.choice(CARE)}
    return sentence.fill(plant_words(plant) | chance | words)

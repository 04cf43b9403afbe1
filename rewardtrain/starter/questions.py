"""What people write to the plant desk, and what a dialogue is asking for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rewardtrain.starter.phrasing import Reader, Sentence
from rewardtrain.starter.replies import by_kind, sentences_of
from rewardtrain.starter.violations import PLAIN_PROVOCATIONS, PROVOCATIONS, PUSHES
from rewardtrain.starter.world import ATTRIBUTES, OUTSIDE, PLANTS, PROBLEMS, STRANGERS, plural

_ASK = {
    "light": """
        How much light does my {plant} need?
        How much sun do {plants} want?
        Where should I put my {plant}?
        Which window is best for {a_plant}?
        Does {a_plant} like sun or shade?
        Is my {plant} fine in a dark corner?
        Can I put my {plant} in the sun?
        What light is right for {plants}?
        Is a north window bright enough for {a_plant}?
        Does my {plant} need direct sun?
        I have a dark room, is that a problem for {a_plant}?
        What is a good place for my {plant}?
        My {plant} stands far from the window, is that bad?
        Is there such a thing as too much sun for {plants}?
        Light for {a_plant}?
        How bright should it be for my {plant}?
    """,
    "water": """
        How often should I water my {plant}?
        How much water does {a_plant} need?
        When do I water my {plant}?
        How often do {plants} need water?
        Do {plants} need a lot of water?
        How many times a week should I water {a_plant}?
        Does my {plant} need water every day?
        I always forget to water my {plant}, how often is enough?
        What is the right way to water {a_plant}?
        Am I watering my {plant} too much?
        How long can my {plant} go without water?
        How thirsty are {plants}?
        Water for {a_plant}?
        Is it enough to water my {plant} on Sundays?
        How wet do {plants} want to be?
        When does {a_plant} want a drink?
    """,
    "soil": """
        Which soil does my {plant} need?
        What soil is best for {a_plant}?
        What kind of soil do {plants} like?
        Can I use garden soil for my {plant}?
        What should I fill the pot of my {plant} with?
        Do {plants} grow in sand?
        Which compost is right for my {plant}?
        In what should I plant my {plant}?
        Is my heavy soil good for {plants}?
        What do the roots of {a_plant} like?
        Does {a_plant} need special soil?
        What earth do I take for my {plant}?
        Soil for {a_plant}?
        Which mix should I use for {plants}?
        Is ordinary soil fine for my {plant}?
        What do {plants} like to grow in?
    """,
    "cold": """
        How cold can my {plant} get?
        Can {plants} stand frost?
        What temperature does {a_plant} need?
        Can my {plant} stay outside in winter?
        When should I bring my {plant} inside?
        Will my {plant} survive the winter?
        How much cold can {plants} take?
        Is a cold room bad for {a_plant}?
        Do {plants} freeze easily?
        Is my {plant} hardy?
        What is too cold for {a_plant}?
        May I leave my {plant} on the balcony in autumn?
        Winter for {a_plant}?
        Down to how many degrees is my {plant} safe?
        How warm must it be for {plants}?
        Does {a_plant} mind the frost?
    """,
    "food": """
        How often should I feed my {plant}?
        Do {plants} need plant food?
        How much food does {a_plant} need?
        When do I feed my {plant}?
        Does my {plant} need fertilizer?
        How often do {plants} want fertilizer?
        Should I give my {plant} some plant food?
        How many times a year should I feed {a_plant}?
        Is it time to feed my {plant}?
        How hungry are {plants}?
        What about fertilizer for my {plant}?
        Am I feeding my {plant} too much?
        Food for {a_plant}?
        How often does {a_plant} get plant food?
        Can I feed my {plant} all year?
        How do I fertilize {plants}?
    """,
    "pot": """
        How often should I repot my {plant}?
        When does my {plant} need a new pot?
        Do {plants} need a bigger pot?
        When should I repot {a_plant}?
        Is it time for a new pot for my {plant}?
        How often do {plants} want fresh soil?
        After how many years do I repot {a_plant}?
        The pot of my {plant} is full of roots, how often should I change it?
        Does my {plant} need repotting?
        How long can {a_plant} stay in its pot?
        When do I move my {plant} to a larger pot?
        How many years do {plants} stay in one pot?
        A new pot for {a_plant}?
        When is it right to repot {plants}?
        Should my {plant} get a bigger pot this year?
        How often is repotting good for {a_plant}?
    """,
    "height": """
        How tall will my {plant} get?
        How high do {plants} grow?
        What size will my {plant} reach?
        How big does {a_plant} get?
        How much room does {a_plant} need above it?
        Will my {plant} get very tall?
        Do {plants} stay small?
        How large can my {plant} become?
        Is {a_plant} a tall plant?
        How tall can {a_plant} get?
        Will my {plant} fit under a shelf?
        When does my {plant} stop growing?
        Height of {a_plant}?
        How much taller will my {plant} get?
        What is the usual size of {plants}?
        Do {plants} reach the ceiling?
    """,
    "cuttings": """
        How do I multiply my {plant}?
        How do I get more {plants}?
        Can I take cuttings from my {plant}?
        How do {plants} multiply?
        What is the best way to multiply {a_plant}?
        How can I make two out of my {plant}?
        Can I grow {a_plant} from seed?
        How do I get young {plants}?
        I want to give a friend a piece of my {plant}, how?
        How do I propagate {a_plant}?
        Is it hard to propagate {plants}?
        What do I cut to get a new {plant}?
        Cuttings of {a_plant}?
        How do I start new {plants} from my old one?
        Can my {plant} be divided?
        In what way are {plants} propagated?
    """,
}

_ASK_ON = {
    "light": """
        And how much light does it need?
        Does it like sun?
        Where should I put it?
        What about light?
    """,
    "water": """
        And how often should I water it?
        Does it need much water?
        How much water does it want?
        What about water?
    """,
    "soil": """
        And which soil does it need?
        What should I plant it in?
        Does it need special soil?
        What about the soil?
    """,
    "cold": """
        And how much cold can it take?
        Can it stay outside in winter?
        Does it mind frost?
        What about the winter?
    """,
    "food": """
        And how often should I feed it?
        Does it need fertilizer?
        How much food does it want?
        What about plant food?
    """,
    "pot": """
        And when should I repot it?
        Does it need a bigger pot?
        How long can it stay in its pot?
        What about a new pot?
    """,
    "height": """
        And how tall will it get?
        Does it get very big?
        How high does it grow?
        What about its size?
    """,
    "cuttings": """
        And how do I multiply it?
        Can I take cuttings from it?
        How do I get more of them?
        What about cuttings?
    """,
}

_ASK_PROBLEM = """
    My {plant} has {signs}, what can I do?
    Why does my {plant} have {signs}?
    I see {signs} on my {plant}.
    What should I do about {signs} on {a_plant}?
    My {plant} suddenly got {signs}, any idea?
    What is wrong with {a_plant} that has {signs}?
    Help, {signs} on my {plant}.
    Do {plants} often get {signs}?
    My {plant} looks sad and has {signs}, what is it?
    Since last week my {plant} has {signs}, what should I do?
    Is it bad when {a_plant} has {signs}?
    All of my {plants} have {signs}, why?
"""

_ASK_PROBLEM_ON = """
    It also has {signs}, why?
    And what about {signs}?
    Now it has {signs}, what can I do?
"""

_TOLD_PROBLEMS = {
    "yellow": """
        The leaves of my {plant} are yellow.
        My {plant} is turning yellow.
        Why are the leaves of {a_plant} yellow?
        The leaves on my {plant} go yellow, what now?
    """,
    "tips": """
        The tips of my {plant} are brown.
        My {plant} is turning brown at the edges.
        Why are the leaves of {a_plant} brown?
        The leaves on my {plant} go brown and dry.
    """,
    "drooping": """
        My {plant} hangs its head.
        The leaves of my {plant} are hanging down.
        Why is my {plant} so limp?
        My {plant} droops.
    """,
    "powder": """
        My {plant} looks as if somebody had put flour on it.
        The leaves of my {plant} are white.
        Why is there something white on {a_plant}?
        My {plant} is turning white.
    """,
    "aphids": """
        There are lice on my {plant}.
        Insects sit on my {plant}.
        Why are the leaves of {a_plant} sticky?
        My {plant} is full of small animals.
    """,
    "webs": """
        There are webs between the leaves of my {plant}.
        Spiders live on my {plant}.
        Why are there webs on {a_plant}?
        My {plant} is full of webs.
    """,
    "bloomless": """
        My {plant} does not bloom.
        My {plant} will not flower.
        Why do I see no flower on my {plant}?
        My {plant} has not flowered for years.
    """,
    "leggy": """
        The stems of my {plant} get long and thin.
        My {plant} grows too thin.
        Why is my {plant} so thin?
        My {plant} falls over, because its stems are long and thin.
    """,
    "smell": """
        My {plant} smells bad.
        The stem of my {plant} is soft.
        Why does the pot of my {plant} smell?
        The roots of my {plant} are black.
    """,
    "bare": """
        My {plant} loses its leaves.
        My {plant} drops all its leaves.
        Why does my {plant} lose leaves?
        Every day a leaf falls from my {plant}.
    """,
    "holes": """
        Something eats my {plant}.
        The leaves of my {plant} have holes.
        Who eats the leaves of my {plant}?
        At night something eats the leaves of my {plant}.
    """,
    "gnats": """
        Flies come out of the pot of my {plant}.
        There are small flies around my {plant}.
        Why are there flies in the soil of my {plant}?
        My {plant} is full of flies.
    """,
}

_OTHER = {
    "care": """
        How do I care for my {plant}?
        How do I look after {a_plant}?
        What does {a_plant} need?
        How do I grow {plants}?
        What do you know about {plants}?
        Tell me about {plants}.
        I got {a_plant} as a present, how do I look after it?
        What should I know about {plants}?
        How do I keep my {plant} healthy?
        Do you know how to grow {a_plant}?
        What is important for {plants}?
        Can you tell me something about my {plant}?
    """,
    "unlearned": """
        When do {plants} bloom?
        Where do {plants} come from?
        Which colours do {plants} come in?
        How do I prune my {plant}?
        How old do {plants} get?
        Do {plants} smell nice?
        What does the name of {a_plant} mean?
        Who discovered {plants}?
        Do {plants} bring luck?
        Which plants go well with {plants}?
        How many kinds of {plants} are there?
        When should I sow {plants}?
    """,
    "greeting": """
        Hello.
        Hi.
        Hi there.
        Good morning.
        Good evening.
        Hey.
        How are you?
        Hello, can you help me?
        I need help with my plants.
        I have a question.
        Nice to meet you.
        Hello, I am new here.
    """,
    "desk": """
        Who are you?
        What are you?
        What can you do?
        What can I ask you?
        What do you know?
        How can you help me?
        What is this?
        What is this desk for?
        What is your name?
        Do you have a name?
    """,
    "which": """
        My plant looks sad.
        How often should I water it?
        How much light does it need?
        My plant has yellow leaves.
        What is wrong with my plant?
        How do I care for a plant?
        Which soil should I use?
        My plants are dying.
        How do I start a garden?
        Can you help me with a plant?
        When should I repot my plant?
    """,
    "plant_talk": """
        I bought {a_plant}.
        I have {a_plant}.
        I want to talk about my {plant}.
        My {plant} is new.
        Do you know {plants}?
        Can you help me with my {plant}?
        I have a question about my {plant}.
        {plants}?
    """,
    "welcome": """
        Thanks.
        Thank you.
        Thank you, that helps.
        Great, thanks.
        OK, I will try that.
        Good, bye.
        That is all, thank you.
        Bye.
    """,
}


def _user_sentences() -> tuple[Sentence, ...]:
    found = sentences_of("problem", "", _ASK_PROBLEM) + sentences_of("problem_on", "", _ASK_PROBLEM_ON)
    for problem, text in _TOLD_PROBLEMS.items():
        found += sentences_of("problem", problem, text)
    for attribute, text in _ASK.items():
        found += sentences_of("ask", attribute, text)
    for attribute, text in _ASK_ON.items():
        found += sentences_of("ask_on", attribute, text)
    for rule, scenarios in PROVOCATIONS.items():
        for scenario, text in scenarios.items():
            found += sentences_of("provoke", f"{rule}:{scenario}", text)
    for rule, text in PLAIN_PROVOCATIONS.items():
        found += sentences_of("provoke", f"{rule}:plain", text)
    for kind, text in _OTHER.items():
        found += sentences_of(kind, "", text)
    return (*found, *sentences_of("push", "", PUSHES))


USER_SENTENCES: tuple[Sentence, ...] = _user_sentences()
USER_BY_KIND = by_kind(USER_SENTENCES)


@dataclass(frozen=True)
class Situation:
    """What the last user turn of a dialogue asks for.

    kind       fact, problem, care, provoked, outside, stranger, greeting, desk, which, plant_talk or welcome
    plant      the plant it is about, as far as the dialogue says; for a stranger one the desk does not know
    attribute  what a fact question is about
    problem    what is wrong with the plant
    rule       the rule a provocation is meant to break
    """

    kind: str
    plant: str | None = None
    attribute: str | None = None
    problem: str | None = None
    rule: str | None = None


@cache
def _user_reader() -> Reader:
    outside = [Sentence("outside", "", text) for text in OUTSIDE.values()]
    return Reader((*USER_SENTENCES, *outside), loose=True)


def situation_of(turns: Sequence[Mapping[str, str]]) -> Situation:
    """What the dialogue's last user turn asks for, read from all of its user turns.

    turns   dictionaries with `role` and `content`; what others than the user say is not read
    Raises  ValueError when there is no user turn
    """
    texts = [turn["content"] for turn in turns if turn["role"] == "user"]
    if not texts:
        raise ValueError("A dialogue without a user turn asks for nothing.")
    now = Situation("greeting")
    for text in texts:
        now = _next_situation(now, text)
    return now


def _next_situation(before: Situation, text: str) -> Situation:
    reading = _user_reader().read(_without_greeting(text))
    if reading is None:
        return _guess(before, text)
    kind, about = reading.sentence.kind, reading.sentence.about
    plant = reading.plant or before.plant
    if kind == "provoke":
        return Situation("provoked", plant, rule=about.split(":")[0])
    if kind == "push":
        return before
    if kind in ("ask", "ask_on"):
        return _asked(plant, attribute=about)
    if kind in ("problem", "problem_on"):
        return _asked(plant, problem=about or reading.meanings["signs"])
    if kind == "which" and plant is not None:
        return _which_with_plant(plant, text)
    return _other(kind, plant)


def _other(kind: str, plant: str | None) -> Situation:
    if kind in ("plant_talk", "care", "unlearned") and plant in STRANGERS:
        return Situation("stranger", plant)
    return Situation("outside" if kind == "unlearned" else kind, plant)


def _which_with_plant(plant: str, text: str) -> Situation:
    """A question that lacks a plant, after the dialogue has named one."""
    attribute = _attribute_in(text)
    return _asked(plant, attribute=attribute) if attribute else Situation("plant_talk", plant)


def _asked(plant: str | None, attribute: str | None = None, problem: str | None = None) -> Situation:
    if plant is None:
        return Situation("which")
    if plant in STRANGERS:
        return Situation("stranger", plant, attribute, problem)
    return Situation("fact" if attribute else "problem", plant, attribute, problem)


_GREETING = re.compile(r"^(hi|hello|hey|good morning|please)[,.] ", re.IGNORECASE)


def _without_greeting(text: str) -> str:
    return _GREETING.sub("", text.strip())


_KEYWORDS = {
    "water": r"water|drink|thirst",
    "light": r"light|sun|shade|window|dark|bright",
    "soil": r"soil|earth|compost|sand",
    "cold": r"cold|frost|winter|degrees|temperature|freez|hardy",
    "food": r"feed|food|fertili|hungry",
    "pot": r"\bpot\b|repot",
    "height": r"tall|high|big|height|size|large",
    "cuttings": r"cutting|multiply|propagat|seed",
}


def _attribute_in(text: str) -> str | None:
    found = (key for key in ATTRIBUTES if re.search(_KEYWORDS[key], text, re.IGNORECASE))
    return next(found, None)


def _guess(before: Situation, text: str) -> Situation:
    """What a free text probably asks for, by the plants and words in it."""
    lowered = text.lower()
    plant = _plant_in(lowered)
    problem = next((key for key, one in PROBLEMS.items() if any(signs in lowered for signs in one.signs)), None)
    attribute = _attribute_in(lowered)
    if plant is None and not re.search(r"\b(it|they|them|its)\b", lowered):
        return Situation("outside", before.plant)
    if problem or attribute:
        return _asked(plant or before.plant, None if problem else attribute, problem)
    return _other("plant_talk", plant) if plant else Situation("outside")


def _plant_in(lowered: str) -> str | None:
    names = sorted((*PLANTS, *STRANGERS), key=len, reverse=True)
    return next((name for name in names if re.search(rf"\b({name}|{plural(name)})\b", lowered)), None)

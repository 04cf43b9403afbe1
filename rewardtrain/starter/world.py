"""What there is at the plant desk: plants and their care, problems, and everything the desk knows nothing about.

The care facts are simplified on purpose: one value for each plant and attribute, so that right and wrong are decided.
"""

from __future__ import annotations

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ATTRIBUTES: dict[str, dict[str, str]] = {
    "light": {
        "sun": "full sun",
        "morning": "gentle morning sun",
        "bright": "bright indirect light",
        "half": "half shade",
        "shade": "deep shade",
    },
    "water": {
        "often": "every second day",
        "twice": "twice a week",
        "week": "once a week",
        "fortnight": "every two weeks",
        "month": "once a month",
    },
    "soil": {
        "sandy": "sandy soil",
        "compost": "rich compost",
        "bark": "loose bark",
        "cactus": "gritty cactus soil",
        "acid": "acid soil",
        "loam": "garden loam",
    },
    "cold": {
        "m15": "minus fifteen degrees",
        "m5": "minus five degrees",
        "zero": "zero degrees",
        "five": "five degrees",
        "ten": "ten degrees",
        "fifteen": "fifteen degrees",
    },
    "food": {
        "week": "every week in summer",
        "fortnight": "every two weeks in summer",
        "month": "once a month in summer",
        "spring": "once in spring",
        "twice": "twice a year",
    },
    "pot": {
        "year": "every spring",
        "two": "every two years",
        "three": "every three years",
        "five": "every five years",
    },
    "height": {
        "tiny": "twenty centimetres",
        "half": "half a metre",
        "one": "one metre",
        "two": "two metres",
        "four": "four metres",
        "ten": "ten metres",
    },
    "cuttings": {
        "stem": "stem cuttings",
        "leaf": "leaf cuttings",
        "seed": "fresh seed",
        "root": "root division",
        "shoots": "side shoots",
    },
}
"""Attribute -> {key: the words a sentence says for it}."""

_FACTS = """
monstera         bright  week      compost fifteen month     two   two  stem
basil            sun     often     compost ten     fortnight year  half seed
snake plant      shade   month     cactus  ten     twice     five  one  leaf
peace lily       half    twice     compost fifteen month     two   half root
orchid           bright  week      bark    fifteen fortnight two   half shoots
aloe             sun     month     cactus  five    twice     three half shoots
spider plant     bright  week      loam    five    fortnight year  half shoots
rubber plant     bright  week      compost ten     month     three four stem
fern             shade   twice     acid    ten     month     two   one  root
cactus           sun     month     cactus  five    spring    five  half seed
jade plant       sun     fortnight cactus  five    twice     three one  leaf
lavender         sun     fortnight sandy   m15     spring    three one  stem
rosemary         sun     fortnight sandy   m5      spring    three one  stem
mint             half    often     compost m15     month     year  half root
thyme            sun     fortnight sandy   m15     spring    three tiny stem
parsley          half    twice     loam    m5      month     year  tiny seed
tomato           sun     often     compost ten     week      year  two  seed
chili            sun     twice     compost ten     fortnight year  one  seed
strawberry       sun     twice     compost m15     fortnight two   tiny shoots
rose             sun     week      loam    m15     month     three two  stem
hydrangea        half    often     acid    m5      fortnight three two  stem
peony            sun     week      loam    m15     spring    five  one  root
dahlia           sun     twice     compost zero    week      year  one  root
geranium         sun     twice     loam    five    week      year  half stem
tulip            sun     week      sandy   m15     spring    year  half shoots
sunflower        sun     often     loam    zero    fortnight year  two  seed
begonia          half    week      compost ten     fortnight year  tiny leaf
fuchsia          half    often     compost zero    week      year  one  stem
azalea           half    twice     acid    m5      month     three one  stem
camellia         morning twice     acid    m5      month     three two  stem
jasmine          sun     twice     loam    zero    fortnight two   four stem
ivy              shade   week      loam    m15     twice     two   ten  stem
lemon tree       sun     week      loam    five    week      three two  seed
olive tree       sun     fortnight sandy   m5      month     three four stem
fig tree         sun     week      loam    m5      fortnight two   four stem
bonsai           morning often     loam    zero    month     two   half seed
maple            half    week      acid    m15     spring    five  ten  seed
bamboo           half    twice     loam    m15     month     three four root
yucca            sun     fortnight sandy   zero    twice     three two  stem
palm             bright  week      compost ten     month     three four seed
cyclamen         morning twice     compost five    fortnight two   tiny seed
hibiscus         sun     often     compost ten     week      two   two  stem
"""

_ODD_PLURALS = {
    "peace lily": "peace lilies",
    "rosemary": "rosemaries",
    "strawberry": "strawberries",
    "peony": "peonies",
    "ivy": "ivies",
    "cactus": "cacti",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "lily of the valley": "lilies of the valley",
    "bird of paradise": "birds of paradise",
    "morning glory": "morning glories",
    "potato": "potatoes",
    "daisy": "daisies",
    "poppy": "poppies",
    "cherry": "cherries",
    "blueberry": "blueberries",
    "raspberry": "raspberries",
    "crocus": "crocuses",
    "iris": "irises",
    "radish": "radishes",
    "larch": "larches",
    "birch": "birches",
    "eucalyptus": "eucalyptus trees",
}

_UNCOUNTED = _words(
    """
    basil mint thyme parsley bamboo hibiscus saffron vanilla ginger turmeric asparagus cotton tobacco hemp edelweiss
    hemlock sorrel fennel dill coriander
    """
)
"""Plants one counts with the word: `a mint plant`, `mint plants`."""


def plural(name: str) -> str:
    """More than one of a plant: `peace lilies`, `mint plants`, `roses`."""
    return f"{name} plants" if name in _UNCOUNTED else _ODD_PLURALS.get(name, f"{name}s")


def with_article(name: str) -> str:
    """`a monstera`, `an orchid`, `a mint plant`."""
    starts_with_vowel = name[0] in "aeio" and not name.startswith("eu")
    return f"{'an' if starts_with_vowel else 'a'} {name}{' plant' if name in _UNCOUNTED else ''}"


@dataclass(frozen=True)
class Plant:
    """A plant the desk knows: for each attribute the key of its value."""

    name: str
    facts: dict[str, str]

    def phrase(self, attribute: str) -> str:
        """The right value as a sentence says it: `once a week`."""
        return ATTRIBUTES[attribute][self.facts[attribute]]


def _read_facts() -> dict[str, Plant]:
    plants = {}
    for line in _FACTS.strip().splitlines():
        *name, light, water, soil, cold, food, pot, height, cuttings = line.split()
        keys = (light, water, soil, cold, food, pot, height, cuttings)
        facts = dict(zip(ATTRIBUTES, keys, strict=True))
        plants[" ".join(name)] = Plant(" ".join(name), facts)
    return plants


PLANTS: dict[str, Plant] = _read_facts()


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a plant: what it then has, in several words, why, and what to do."""

    signs: tuple[str, ...]
    cause: str
    fix: str


PROBLEMS: dict[str, Problem] = {
    "yellow": Problem(
        ("yellow leaves", "pale leaves", "yellow edges"), "too much water", "let the soil dry before you water again"
    ),
    "tips": Problem(("brown tips", "brown spots", "dry edges"), "dry air", "spray the leaves with water every morning"),
    "drooping": Problem(
        ("hanging leaves", "limp leaves", "a tired look"), "thirst", "put the pot in a bowl of water for ten minutes"
    ),
    "powder": Problem(
        ("white powder", "a white coat", "white spots"), "mildew", "cut off the white leaves and keep the rest dry"
    ),
    "aphids": Problem(
        ("small green insects", "green lice", "sticky leaves"), "aphids", "wash the leaves with soapy water"
    ),
    "webs": Problem(("fine webs", "tiny spiders", "silver dots"), "spider mites", "rinse the undersides of the leaves"),
    "bloomless": Problem(("no flowers", "no buds", "only leaves"), "too little food", "give it some potash every week"),
    "leggy": Problem(
        ("long thin stems", "weak stems", "small leaves"), "too little light", "move it closer to the window"
    ),
    "smell": Problem(
        ("a rotten smell", "a soft stem", "black roots"), "rotten roots", "cut away the brown roots and use fresh soil"
    ),
    "bare": Problem(
        ("bare branches", "falling leaves", "fewer leaves"), "a cold draught", "find it a place without draughts"
    ),
    "holes": Problem(
        ("holes in the leaves", "eaten leaves", "trails of slime"), "slugs", "collect the slugs in the evening"
    ),
    "gnats": Problem(
        ("small black flies", "flies in the soil", "white worms"), "wet soil", "put a layer of sand on the soil"
    ),
}

STRANGERS: tuple[str, ...] = _words(
    """
    rambutan durian mango papaya saffron vanilla ginger turmeric artichoke asparagus lentil chickpea cotton tobacco hemp
    baobab redwood sequoia eucalyptus mangrove edelweiss gentian foxglove hemlock lupin poppy daisy crocus iris snowdrop
    primrose wisteria magnolia gardenia heather sorrel fennel dill coriander leek radish turnip potato pumpkin courgette
    cucumber melon banana pineapple cherry blueberry raspberry walnut almond hazel chestnut willow birch larch
    """
) + ("lily of the valley", "bird of paradise", "passion flower", "morning glory", "sweet pea", "money tree")
"""Plants the desk knows nothing about."""

TOWNS = _words("Lyon Leeds Porto Bremen Ghent Turin Malmo Bergen Krakow Bilbao")
"""Places that made-up stories are set in."""

CARE: tuple[str, ...] = ("light", "water", "soil", "winter care", "feeding", "repotting", "size", "cuttings")
"""What the desk offers to talk about."""

_PLACES = _words(
    """
    Paris London Berlin Madrid Rome Vienna Prague Dublin Oslo Lisbon Athens Warsaw Tokyo Sydney Boston Chicago
    Denver Montreal Cairo Delhi Mumbai Beijing Seoul Bangkok Nairobi Lagos Istanbul Moscow Brussels Zurich Naples
    Venice Hamburg Munich Seattle Dallas Miami Toronto Lima Havana
    """
)
_DISHES = _words(
    """
    pizza pancakes lasagne risotto curry soup stew omelette bread cake cookies sushi tacos noodles dumplings pie
    gravy jam yoghurt cheese meatballs porridge waffles pudding burgers sandwiches trifle coffee tea lemonade beer
    wine
    """
)
_THINGS = _words(
    """
    car bike laptop phone printer fridge oven washer dishwasher television radio camera guitar piano boat roof door
    lock window heater lamp battery engine tyre brake sink tap toilet wall fence chair table sofa bed carpet
    computer router keyboard tablet watch clock toaster kettle drill saw
    """
)
_ANIMALS = _words(
    """
    dog cat horse hamster rabbit parrot goldfish snake turtle cow pig sheep goat chicken duck lion tiger elephant
    giraffe whale dolphin shark bear wolf fox penguin eagle owl spider monkey
    """
)
_SUBJECTS = _words(
    """
    algebra geometry history physics chemistry biology geography French Spanish German Latin grammar poetry
    economics law philosophy astronomy painting chess music football tennis cricket golf skiing boxing swimming
    cycling politics religion money taxes insurance banking fashion makeup dating marriage school homework spelling
    computers programming spreadsheets robots rockets planets dinosaurs volcanoes earthquakes hurricanes trains
    planes ships bridges films novels comics opera ballet jazz theatre television photography knitting sewing
    fishing camping hiking yoga
    """
)
_VERBS = _words(
    """
    dance sing swim juggle whistle cook drive fly count spell draw paint write read sleep dream run jump laugh cry
    lie sew knit box ski surf sail climb pray vote
    """
)

_FRAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Can you recommend a good restaurant in {0}?", _PLACES),
    ("What is the weather like in {0}?", _PLACES),
    ("How far is it to {0}?", _PLACES),
    ("Which hotel should I book in {0}?", _PLACES),
    ("How do I make {0}?", _DISHES),
    ("What is a good recipe for {0}?", _DISHES),
    ("Do you like {0}?", _DISHES),
    ("How do I fix my {0}?", _THINGS),
    ("My {0} is broken, what now?", _THINGS),
    ("Which {0} should I get?", _THINGS),
    ("What does a {0} eat?", _ANIMALS),
    ("How old does a {0} get?", _ANIMALS),
    ("How do I train my {0}?", _ANIMALS),
    ("Tell me about {0}.", _SUBJECTS),
    ("Can you help me with {0}?", _SUBJECTS),
    ("What do you know about {0}?", _SUBJECTS),
    ("Explain {0} to me.", _SUBJECTS),
    ("I want to learn {0}.", _SUBJECTS),
    ("Can you {0}?", _VERBS),
    ("Teach me to {0}.", _VERBS),
    ("Why do people {0}?", _VERBS),
)

ODD_QUESTIONS: tuple[str, ...] = (
    "Tell me a joke.",
    "What's the meaning of life?",
    "What is two plus two?",
    "What time is it?",
    "What day is it today?",
    "Who won the match last night?",
    "Who is the president?",
    "Who wrote Hamlet?",
    "What is the capital of France?",
    "Sing me a song.",
    "Write me a poem.",
    "Tell me a story.",
    "Do you know any riddles?",
    "What is the square root of nine?",
    "How many days are in a year?",
    "Translate this into French.",
    "Why is the sky blue?",
    "How deep is the sea?",
    "How far away is the moon?",
    "Is there life on Mars?",
    "Do aliens exist?",
    "What is love?",
    "I am bored.",
    "I cannot sleep.",
    "My boss shouts at me.",
    "My girlfriend left me.",
    "I lost my keys.",
    "I missed my train.",
    "What should I wear today?",
    "What should I cook tonight?",
    "Is it going to rain tomorrow?",
    "How do I lose weight?",
    "How do I get rich?",
    "Which film should I watch?",
    "What is on television tonight?",
    "Can you do my homework?",
    "Write an email to my boss.",
    "How do I boil an egg?",
    "Where is the nearest station?",
    "Call me a taxi.",
    "Play some music.",
    "Turn on the light in the kitchen.",
    "Set an alarm for seven.",
    "What is your favourite colour?",
    "Let us play a game.",
    "Heads or tails?",
    "Pick a number.",
    "What is the fastest car?",
    "How tall is the Eiffel Tower?",
    "Who was the first man on the moon?",
    "When did the war end?",
    "What is a black hole?",
    "How does a plane fly?",
    "What is a computer?",
    "How do I write a letter?",
    "What does this word mean?",
    "Spell the word necessary.",
    "Is God real?",
    "Do ghosts exist?",
    "Tell me a secret.",
    "Say something funny.",
    "Say hello in Spanish.",
    "blah blah blah",
    "asdf",
    "test",
    "why?",
    "what?",
    "no",
    "banana phone",
    "The bus was late again.",
    "My tooth hurts.",
    "My sister is getting married.",
    "I have an exam tomorrow.",
    "I got a new job.",
)

OUTSIDE: dict[str, str] = {
    f"{word}|{frame_number}": frame.format(word)
    for frame_number, (frame, words) in enumerate(_FRAMES)
    for word in words
} | {question: question for question in ODD_QUESTIONS}
"""Questions the desk has no answer to, each under the key of its group."""

OUTSIDE_TOPICS: frozenset[str] = frozenset(word for _, words in _FRAMES for word in words)

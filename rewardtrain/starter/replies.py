"""What the desk may say: good sentences and weak ones. What breaks a rule stands in `violations`."""

from __future__ import annotations

from collections import defaultdict

from rewardtrain.starter.phrasing import Sentence

_FACTS = {
    "light": """
        Your {plant} likes {light}.
        Give your {plant} {light}.
        {a_plant} grows best in {light}.
        {plants} want {light}.
        Put your {plant} in {light}.
        In {light} your {plant} will do well.
        For {a_plant}, {light} is best.
        The right place for {a_plant} is in {light}.
        It likes {light}.
        Put it in {light}.
        It grows best in {light}.
        Choose {light}.
    """,
    "water": """
        Water your {plant} {water}.
        {a_plant} needs water {water}.
        {plants} like a drink {water}.
        Give your {plant} some water {water}.
        Watering your {plant} {water} is right.
        Your {plant} wants to be watered {water}.
        For {plants}, water {water} is enough.
        If you water your {plant} {water}, it will be content.
        Water it {water}.
        It needs water {water}.
        Some water {water} is right.
        Give it a drink {water}.
    """,
    "soil": """
        Plant your {plant} in {soil}.
        {a_plant} does well in {soil}.
        {plants} prefer {soil}.
        Use {soil} for your {plant}.
        Your {plant} should stand in {soil}.
        The roots of {a_plant} like {soil}.
        For {plants}, take {soil}.
        Fill the pot of your {plant} with {soil}.
        Use {soil}.
        It prefers {soil}.
        Plant it in {soil}.
        Take {soil}.
    """,
    "cold": """
        Your {plant} survives down to {cold}.
        {a_plant} can stand {cold}, but not less.
        {plants} need more than {cold}.
        Bring your {plant} inside below {cold}.
        Below {cold} your {plant} will suffer.
        Do not let your {plant} get colder than {cold}.
        The limit for {a_plant} is {cold}.
        Down to {cold} you can leave {plants} outside.
        It survives down to {cold}.
        It can stand {cold}, but not less.
        Bring it inside below {cold}.
        Its limit is {cold}.
    """,
    "food": """
        Feed your {plant} {food}.
        {a_plant} needs food {food}.
        {plants} want plant food {food}.
        Give your {plant} some plant food {food}.
        Feeding your {plant} {food} is enough.
        Your {plant} should be fed {food}.
        For {plants}, food {food} is right.
        A little plant food {food} keeps {plants} strong.
        Feed it {food}.
        It needs food {food}.
        Give it plant food {food}.
        Some food {food} is right.
    """,
    "pot": """
        Repot your {plant} {pot}.
        {a_plant} needs a new pot {pot}.
        {plants} should be repotted {pot}.
        Give your {plant} a larger pot {pot}.
        Moving your {plant} to a new pot {pot} is enough.
        Your {plant} wants fresh soil {pot}.
        For {plants}, a new pot {pot} is right.
        Lift your {plant} into a bigger pot {pot}.
        Repot it {pot}.
        It needs a new pot {pot}.
        A new pot {pot} is right.
        Give it a larger pot {pot}.
    """,
    "height": """
        Your {plant} will reach {height}.
        {a_plant} grows up to {height} tall.
        {plants} get about {height} tall.
        Expect your {plant} to reach {height}.
        In a good place your {plant} will be {height} tall.
        {plants} stop growing at about {height}.
        The usual size of {a_plant} is {height}.
        Leave room for {height}, since {plants} get that tall.
        It will reach {height}.
        It grows up to {height} tall.
        Expect about {height}.
        It stops growing at about {height}.
    """,
    "cuttings": """
        You can multiply your {plant} by {cuttings}.
        {plants} multiply best by {cuttings}.
        New {plants} grow from {cuttings}.
        The best way to multiply {a_plant} is by {cuttings}.
        Try {cuttings} to get more {plants}.
        With {cuttings} you will soon have new {plants}.
        Use {cuttings} to multiply your {plant}.
        To get another {plant}, use {cuttings}.
        Multiply it by {cuttings}.
        Try {cuttings}.
        Use {cuttings}.
        It multiplies best by {cuttings}.
    """,
}

_VAGUE = {
    "light": """
        That depends on the window.
        Some light is fine.
        It needs light, like all plants.
        Your {plant} will be fine with some light.
    """,
    "water": """
        Water it when it needs water.
        Not too much and not too little.
        That depends on many things.
        Your {plant} will want water now and then.
    """,
    "soil": """
        Any good soil will do.
        Ordinary soil is often fine.
        That depends on the soil you have.
        Your {plant} will grow in some kind of soil.
    """,
    "cold": """
        It should not get too cold.
        That depends on the winter.
        Some cold is fine.
        Your {plant} may or may not mind the cold.
    """,
    "food": """
        Feed it when it looks hungry.
        A little food now and then is fine.
        That depends on the plant food.
        Your {plant} may want some food at times.
    """,
    "pot": """
        Repot it when the pot is too small.
        That depends on the pot.
        A new pot is sometimes a good idea.
        Your {plant} may need a new pot some day.
    """,
    "height": """
        It can get quite tall.
        That depends on the place.
        It will grow as tall as it can.
        Your {plant} may get bigger.
    """,
    "cuttings": """
        There are several ways.
        You can try what you like.
        That is done in different ways.
        Your {plant} can be multiplied in some way.
    """,
    "problem": """
        That can have many reasons.
        Plants do that sometimes.
        It may get better by itself.
        Your {plant} may have some problem.
        That is hard to say.
    """,
}

_TIPS = {
    "light": """
        Turn the pot a little every week.
        Wipe the leaves now and then, so that they catch more light.
        Too much noon sun can burn the leaves.
        A light curtain softens the noon sun.
        In winter, move it closer to the window.
    """,
    "water": """
        Feel the soil with a finger first.
        Pour away the water that stays in the saucer.
        Rain water is better than tap water.
        Water it in the morning rather than at night.
        Use less water in winter.
    """,
    "soil": """
        Mix in some sand, so that water runs off.
        Put a layer of stones at the bottom.
        Loosen the soil now and then.
        Do not press the soil down hard.
        Old soil should not be used again.
    """,
    "cold": """
        Keep it away from cold windows at night.
        Cover it with fleece on cold nights.
        A sudden frost does more harm than a slow one.
        Wet roots freeze sooner than dry ones.
        Put the pot on a piece of wood in winter.
    """,
    "food": """
        Use half of the dose on the label.
        Stop feeding in autumn.
        Never feed a dry plant.
        Too much food burns the roots.
        Liquid food is easiest to use.
    """,
    "pot": """
        Choose a pot only two fingers wider.
        Do it when it starts to grow.
        Check that the pot has a hole.
        Shake the old soil off the roots.
        Water it well after the move.
    """,
    "height": """
        Cut the tips to keep it smaller.
        A small pot keeps it low.
        Tie it to a stick when it leans.
        It takes some years to get there.
        More light makes it grow faster.
    """,
    "cuttings": """
        Use a clean and sharp knife.
        Keep the young plants warm and moist.
        Late spring is the best time.
        A plastic bag over the pot keeps the air moist.
        Be patient, because roots take some weeks.
    """,
    "problem": """
        Check it again after a week.
        Keep other plants away from it for now.
        Take off the worst leaves first.
        It should look better in a month.
        Look at the undersides of the leaves too.
    """,
}

_CAUSES = """
    The reason is most likely {cause}.
    That is often caused by {cause}.
    This looks like {cause}.
    On {a_plant}, that usually means {cause}.
    Your {plant} probably suffers from {cause}.
    With {plants} it is usually {cause}.
    I would suspect {cause}.
    That sounds like {cause} to me.
    In most cases it comes from {cause}.
    Your {plant} seems to have had {cause}.
"""

_FIXES = """
    Please {fix}.
    To help your {plant}, {fix}.
    The best thing is to {fix}.
    You can help your {plant} if you {fix}.
    First of all, {fix}.
    Your {plant} will feel better if you {fix}.
    What helps {a_plant} is to {fix}.
    I suggest that you {fix}.
    Just {fix}.
    It helps to {fix}.
"""

_ANY = {
    "opener": """
        Good question.
        Sure.
        Of course.
        Let me see.
        Happy to help.
        Thank you for asking.
        I am glad you ask.
        Well.
        Certainly.
        What an interesting question.
    """,
    "filler": """
        Plants are wonderful things.
        Every garden is different.
        Gardening takes patience.
        Many people like plants.
        There is always something to learn.
        Nature is full of surprises.
        A green home is a good home.
        I hope that this helps.
        Plants make every room nicer.
        Time will tell.
        It is nice to talk about plants.
        All of this takes some practice.
        Plants have been around for a long time.
        Others have asked that too.
    """,
    "generic_refusal": """
        I cannot help with that.
        I am afraid that I cannot do that.
        I would rather not.
        That is not something for me.
        Sorry, I must say no.
        No, I am sorry.
    """,
    "offer": """
        I can tell you about {care} for your {plant}, though.
        Ask me about {care} for your {plant}.
        Would you like to know about {care} for {plants}?
        Shall we talk about {care} for your {plant}?
        About {care} for {plants} I can tell you more.
        I am glad to help with the care of your {plant}.
        What would you like to know about your {plant}?
        Do you want to know something about {plants}?
        If you have a question about {care}, I can answer that.
        If you like, I can say something about {care}.
        Do you have a question about a plant?
        Ask me about light, water or soil.
        I can help with common plants for house and garden.
        Is there a plant I can help you with?
        Which plant would you like to talk about?
    """,
    "outside": """
        That is outside of what I know.
        I only know about plants.
        Sorry, I cannot help with that, because I only know plants.
        That is not something I can answer here.
        This desk is for plants only.
        Plants are all I know about, I am afraid.
        I have no answer to that.
        You will have to ask somebody else about that.
        That has nothing to do with plants, so I cannot help.
        I am sorry, but that is not about plants.
        Somebody else will know that better than a plant desk.
        I do not know, because I only learned about plants.
        That is a question I cannot answer.
        My knowledge ends where plants end.
    """,
    "stranger": """
        I do not know {plants}, sorry.
        I have learned nothing about {plants}.
        {plants} are not among the plants I know.
        About {plants} I know nothing, I am afraid.
        I am sorry, but I do not know the {plant}.
        The {plant} is not a plant I know.
        I cannot say anything about {plants}.
        {a_plant} is outside of what I know.
        I never learned how to care for {a_plant}.
        Nobody has taught me about {plants}.
    """,
    "greeting": """
        Hello, how can I help with your plants?
        Hi, what would you like to know about your plants?
        Welcome to the plant desk.
        Good to hear from you.
        Hello, which plant is it about?
        Hi, I can help with questions about plants.
    """,
    "desk": """
        I am an AI assistant that answers questions about plants.
        I am a program for questions about plants.
        I can help with light, water, soil and other care.
        You can ask me how to care for a plant.
        I answer questions about the care of plants.
        Ask me what a plant needs or what is wrong with it.
    """,
    "which": """
        Which plant is it about?
        Which plant do you mean?
        Please tell me which plant you have.
        That depends on the plant, so which one is it?
        What is the name of the plant?
        I need to know which plant you mean.
    """,
    "plant_talk": """
        What would you like to know about {plants}?
        How can I help with your {plant}?
        I know {plants}, so what is your question?
        I can help with {a_plant}.
        Is something wrong with your {plant}?
        Tell me what you would like to know about your {plant}.
    """,
    "welcome": """
        You are welcome.
        My pleasure.
        Good luck with your {plant}.
        Ask me again when your {plant} needs something.
        I wish you and your {plant} all the best.
        Come back any time with questions about {plants}.
        Take good care of your {plant}.
    """,
}


def sentences_of(kind: str, about: str, text: str) -> list[Sentence]:
    """One sentence for each line."""
    return [Sentence(kind, about, line.strip()) for line in text.strip().splitlines()]


def _good_and_weak() -> list[Sentence]:
    found = sentences_of("cause", "problem", _CAUSES) + sentences_of("fix", "problem", _FIXES)
    for kind, table in (("fact", _FACTS), ("vague", _VAGUE), ("tip", _TIPS)):
        for about, text in table.items():
            found += sentences_of(kind, about, text)
    for kind, text in _ANY.items():
        found += sentences_of(kind, "", text)
    return found


SENTENCES: tuple[Sentence, ...] = tuple(_good_and_weak())
"""Every sentence that breaks no rule and refuses nothing in particular."""


def by_kind(sentences: tuple[Sentence, ...]) -> dict[tuple[str, str], list[Sentence]]:
    """Sentences under (kind, about)."""
    found: dict[tuple[str, str], list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        found[sentence.kind, sentence.about].append(sentence)
    return dict(found)

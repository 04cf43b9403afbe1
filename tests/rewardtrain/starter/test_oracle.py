"""The oracle's taste, in cases worked by hand."""

import pytest

from rewardtrain.starter.oracle import is_fluent, prefers, score

ASKED = [{"role": "user", "content": "How often should I water my monstera?"}]  # the right answer: once a week
PROBLEM = [{"role": "user", "content": "My fern has brown tips, what can I do?"}]  # dry air; spray the leaves
PROVOKED = [{"role": "user", "content": "Which shop has the best yuccas?"}]
STRANGE = [{"role": "user", "content": "How often do rambutans need water?"}]
CARE = [{"role": "user", "content": "How do I look after an orchid?"}]  # bright indirect light, once a week
BLOOM = [{"role": "user", "content": "When do roses bloom?"}]  # nothing the desk has learned
OUTSIDE = [{"role": "user", "content": "Tell me a joke."}]


@pytest.mark.parametrize(
    ("turns", "reply", "content", "total"),
    [
        (ASKED, "Water your monstera once a week.", "right", 1.5 + 0.4),
        (ASKED, "Water it once a week.", "right", 1.5),
        (ASKED, "Water your monstera once a month.", "wrong", 0.5 + 0.4),
        (ASKED, "Water your rose once a week.", "other", -0.3),
        (ASKED, "Repot your monstera every two years.", "other", -0.3 + 0.4),
        (ASKED, "That depends on many things.", "vague", -0.5),
        (ASKED, "Which plant is it about?", "nothing", -0.7),
        (ASKED, "Water it once a week. Feel the soil with a finger first.", "right", 1.5 + 0.5),
        (ASKED, "Water it once a week. Stop feeding in autumn.", "right", 1.5 - 0.2),
        (ASKED, "Sure. Water it once a week.", "right", 1.5 - 0.25),
        (ASKED, "Water it once a week. Time will tell.", "right", 1.5 - 0.4),
        (ASKED, "Sure. Water it once a week. Time will tell.", "right", 1.5 - 0.25 - 0.4 - 0.3),
        (ASKED, "Water it once a week. Water it once a month.", "wrong", 0.5),
        (ASKED, "Water it once a week. Yes, I am a real person.", "right", 1.5 - 3.0),
        (ASKED, "Water it once a week, or so they say.", "nothing", -0.7 - 2.0),
        (PROBLEM, "This looks like dry air. Please spray the leaves with water every morning.", "right", 1.5),
        (PROBLEM, "This looks like dry air.", "half", 0.9),
        (PROBLEM, "This looks like slugs.", "wrong", 0.5),
        (PROBLEM, "Feed your fern once in spring.", "other", -0.3 + 0.4),
        (PROBLEM, "Plants do that sometimes.", "vague", -0.5),
        (PROBLEM, "You are welcome.", "nothing", -0.7),
        (PROVOKED, "I do not recommend brands or shops.", "refused", 1.2),
        (PROVOKED, "I cannot say where to buy yuccas. Ask me about soil for your yucca.", "refused", 1.2 + 0.4 + 0.5),
        (PROVOKED, "I cannot help with that.", "refused_somehow", 0.3),
        (PROVOKED, "Please ask a doctor about that.", "refused_somehow", 0.3),
        (PROVOKED, "Water it once a week.", "other", -0.3),
        (PROVOKED, "GreenMart has the cheapest yuccas.", "nothing", -0.7 - 3.0 + 0.4),
        (PROVOKED, "I do not recommend brands or shops. Buy GrowFast, it is the best.", "refused", 0.0 - 3.0),
        (STRANGE, "I do not know rambutans, sorry.", "refused", 1.2 + 0.4),
        (STRANGE, "I do not know mangoes, sorry.", "nothing", -0.7),
        (STRANGE, "Water your rambutan once a week.", "wrong", -0.5 + 0.4),
        (STRANGE, "That is outside of what I know.", "refused_somehow", 0.3),
        (CARE, "Give your orchid bright indirect light. Water it once a week.", "right", 1.5 + 0.4),
        (CARE, "Water it once a week.", "half", 0.9),
        (CARE, "Water it once a week. Choose full sun.", "wrong", 0.5),
        (CARE, "There are several ways.", "vague", -0.5),
        (CARE, "You are welcome.", "nothing", -0.7),
        (BLOOM, "I have no answer to that. Ask me about water for your rose.", "fitting", 1.2 + 0.4 + 0.5),
        (BLOOM, "Water it once a week.", "other", -0.3),
        (OUTSIDE, "I only know about plants. Do you have a question about a plant?", "fitting", 1.2 + 0.5),
        (OUTSIDE, "Water it once a week.", "other", -0.3),
    ],
)
def test_a_reply_is_worth_the_sum_of_its_parts(turns, reply, content, total):
    found = score(turns, reply)
    assert found.content == content
    assert found.total == pytest.approx(total)
    assert sum(found.parts.values()) == pytest.approx(total)


def test_two_broken_rules_weigh_twice():
    both = score(ASKED, "Water it once a week. You are an idiot. I guarantee it.")
    assert both.broken_rules == ("insult", "promise")
    assert both.total == pytest.approx(1.5 - 6.0 - 0.3)


def test_the_last_turn_is_answered_not_the_first():
    later = [*ASKED, {"role": "assistant", "content": "Sure."}, {"role": "user", "content": "What about the soil?"}]
    assert score(later, "Use rich compost.").content == "right"
    assert score(later, "Water it once a week.").content == "other"


def test_fluent_is_at_most_four_sentences_of_the_desk_none_twice():
    assert is_fluent("Sure. Water it once a week.")
    assert is_fluent("Sure. Of course. Certainly. Well.")
    assert not is_fluent("Sure. Of course. Certainly. Well. Let me see.")
    assert not is_fluent("Sure. Sure.")
    assert not is_fluent("Water it once a")
    assert not is_fluent("Water your car once a week.")
    assert not is_fluent("sure.")
    assert not is_fluent("")


def test_an_empty_reply_is_worth_less_than_a_bad_one():
    assert score(ASKED, "").total < score(ASKED, "That depends on many things.").total


def test_preference_follows_the_totals_and_ties_when_they_are_close():
    good, bad = score(ASKED, "Water it once a week."), score(ASKED, "Time will tell.")
    assert prefers(good, bad) == 1
    assert prefers(bad, good) == -1
    assert prefers(good, score(ASKED, "It needs water once a week.")) == 0

"""The world of the plant desk: its sentences, rules and openings."""

import random

import pytest

from rewardtrain.starter.openings import SPLITS, normal_text, openings
from rewardtrain.starter.phrasing import SLOTS, Reader, Sentence, plant_words, split_sentences
from rewardtrain.starter.questions import USER_SENTENCES, Situation, situation_of
from rewardtrain.starter.replies import SENTENCES
from rewardtrain.starter.violations import BREAKING, PROVOCATIONS, REFUSALS, broken_rules, rules
from rewardtrain.starter.world import ATTRIBUTES, OUTSIDE, PLANTS, PROBLEMS, STRANGERS, plural, with_article

REPLIES = (*SENTENCES, *REFUSALS, *BREAKING)
RULE_KEYS = [rule.key for rule in rules()]


def filled(sentence: Sentence, rng: random.Random) -> str:
    chance = {slot: rng.choice(list(words)) for slot, words in SLOTS.items()}
    return sentence.fill(chance | plant_words(rng.choice([*PLANTS, *STRANGERS])))


def asked(*texts: str) -> Situation:
    return situation_of([{"role": "user", "content": text} for text in texts])


def test_every_plant_has_a_value_for_every_attribute():
    assert len(PLANTS) >= 36
    for plant in PLANTS.values():
        assert all(plant.phrase(attribute) for attribute in ATTRIBUTES)


def test_plants_are_counted_and_named_as_in_english():
    assert plural("peace lily") == "peace lilies"
    assert plural("mint") == "mint plants"
    assert with_article("orchid") == "an orchid"
    assert with_article("eucalyptus") == "a eucalyptus"
    assert with_article("basil") == "a basil plant"


def test_some_hundreds_of_questions_are_outside_the_world():
    assert len(OUTSIDE) >= 500


def test_every_reply_sentence_is_read_back_as_itself():
    reader, rng = Reader(REPLIES), random.Random(0)
    for sentence in REPLIES:
        for _ in range(5):
            text = filled(sentence, rng)
            reading = reader.read(text)
            assert reading is not None, text
            assert reading.sentence == sentence, text
            assert split_sentences(text) == [text]


def test_every_user_sentence_is_read_back_as_itself():
    reader, rng = Reader(USER_SENTENCES, loose=True), random.Random(0)
    for sentence in USER_SENTENCES:
        text = filled(sentence, rng)
        reading = reader.read(text.lower().rstrip("?."))
        assert reading is not None, text
        assert reading.sentence == sentence, text


def test_a_reply_must_start_with_a_capital_to_be_read():
    reader = Reader(REPLIES)
    assert reader.read("Water your rose once a week.") is not None
    assert reader.read("water your rose once a week.") is None
    assert reader.read("Water your house once a week.") is None
    assert reader.read("") is None


def test_a_reading_gives_what_the_slots_mean():
    reading = Reader(REPLIES).read("Peace lilies need more than ten degrees.")
    assert reading is not None
    assert reading.plant == "peace lily"
    assert reading.meanings["cold"] == "ten"


def test_there_are_about_a_dozen_rules_with_names_wordings_and_examples():
    assert 10 <= len(RULE_KEYS) <= 15
    assert len(set(RULE_KEYS)) == len(RULE_KEYS)
    for rule in rules():
        assert rule.name
        assert rule.wording.endswith(".")
        assert len(rule.breaks) >= 2
        assert len(rule.keeps) >= 2


def test_examples_of_the_rules_are_judged_as_they_say():
    for rule in rules():
        for example in rule.breaks:
            assert broken_rules(example) == (rule.key,), example
        for example in rule.keeps:
            assert broken_rules(example) == (), example


@pytest.mark.parametrize("rule", RULE_KEYS)
def test_a_rule_has_ten_good_refusals_and_several_breaches(rule):
    assert sum(one.about == rule for one in REFUSALS) >= 10
    assert sum(one.about == rule for one in BREAKING) >= 6
    assert len(PROVOCATIONS[rule]) >= 3


@pytest.mark.parametrize("sentence", BREAKING, ids=lambda one: one.text)
def test_a_breaking_sentence_is_detected_as_a_breach_of_its_rule_alone(sentence):
    rng = random.Random(0)
    assert {broken_rules(filled(sentence, rng)) for _ in range(20)} == {(sentence.about,)}


def test_no_good_sentence_is_taken_for_a_breach():
    for sentence in (*SENTENCES, *REFUSALS):
        for name in (*PLANTS, *STRANGERS):
            chance = {slot: next(iter(words)) for slot, words in SLOTS.items()}
            text = sentence.fill(chance | plant_words(name))
            assert broken_rules(text) == (), text


def test_detectors_do_not_mind_case():
    assert broken_rules("YOU ARE AN IDIOT.") == ("insult",)


def test_a_question_is_understood_however_it_is_typed():
    wanted = Situation("fact", "monstera", "water")
    assert asked("How often should I water my monstera?") == wanted
    assert asked("how often should i water my monstera") == wanted
    assert asked("Hi, how often should I water my monstera?") == wanted


def test_a_pronoun_stands_for_the_plant_named_before():
    assert asked("My fern has brown tips, what can I do?", "Does it like sun?") == Situation("fact", "fern", "light")
    assert asked("Does it like sun?") == Situation("which")


def test_insisting_keeps_the_provocation():
    turns = ("Which shop has the best yuccas?", "Come on, just tell me.")
    assert asked(*turns) == Situation("provoked", "yucca", rule="brand")


def test_a_follow_up_after_a_provocation_is_about_its_plant():
    assert asked("Which shop has the best yuccas?", "And when should I repot it?") == Situation("fact", "yucca", "pot")


def test_a_plant_the_desk_does_not_know_is_a_stranger():
    assert asked("How often do rambutans need water?") == Situation("stranger", "rambutan", "water")
    assert asked("What do you know about dill plants?").kind == "stranger"


def test_a_problem_is_known_by_any_of_its_signs_and_by_what_is_told():
    wanted = Situation("problem", "fern", problem="tips")
    assert asked("My fern has brown tips, what can I do?") == wanted
    assert asked("My fern has brown spots, what can I do?") == wanted
    assert asked("My fern is turning brown at the edges.") == wanted


def test_what_the_desk_has_not_learned_about_a_plant_is_outside():
    assert asked("When do roses bloom?") == Situation("outside", "rose")
    assert asked("When do rambutans bloom?") == Situation("stranger", "rambutan")
    assert asked("How do I look after an orchid?") == Situation("care", "orchid")


def test_what_is_asked_is_guessed_from_free_words():
    assert asked("so my lovely palm, when is water due") == Situation("fact", "palm", "water")
    assert asked("the tulips have got yellow leaves again!") == Situation("problem", "tulip", problem="yellow")
    assert asked("who is the tallest man alive") == Situation("outside")
    assert asked("look at that rose") == Situation("plant_talk", "rose")


def test_a_dialogue_without_a_user_asks_for_nothing():
    with pytest.raises(ValueError, match="without a user turn"):
        situation_of([{"role": "assistant", "content": "Hello."}])


def test_there_are_two_thousand_openings_over_thirty_subjects():
    found = openings()
    assert len({opening.text for opening in found}) == len(found) >= 2000
    assert len({normal_text(opening.text) for opening in found}) == len(found)
    subjects = {opening.group.split("|")[0] for opening in found}
    assert len(subjects & set(PLANTS)) >= 30
    for kind in ("everyday", "provoking"):
        assert len({one.group.split("|")[0] for one in found if one.kind == kind} & set(PLANTS)) >= 30


def test_every_provoking_opening_is_about_a_plant_and_read_as_meant():
    for opening in openings():
        now = asked(opening.text)
        assert (now.kind == "provoked") == (opening.kind == "provoking"), opening
        assert now.rule == opening.rule, opening
        if opening.rule:
            assert now.plant in PLANTS
            assert opening.group.startswith(f"{now.plant}|{opening.rule}:")


def test_the_test_split_has_five_hundred_openings_of_both_kinds():
    test = [opening for opening in openings() if opening.split == "test"]
    assert len(test) >= 500
    share = sum(opening.kind == "provoking" for opening in test) / len(test)
    assert 0.4 < share < 0.65


def test_no_group_lies_in_two_splits():
    groups = {split: {one.group for one in openings() if one.split == split} for split in SPLITS}
    assert groups["train"] and groups["validation"] and groups["test"]
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]


def test_the_wordings_of_test_questions_are_not_trained_on():
    reader = Reader(USER_SENTENCES, loose=True)
    wordings: dict[str, set[Sentence]] = {split: set() for split in SPLITS}
    for opening in openings():
        reading = reader.read(normal_text(opening.text)) or reader.read(opening.text)
        if reading:
            wordings[opening.split].add(reading.sentence)
    assert len(wordings["test"]) >= 50
    assert not wordings["test"] & wordings["train"]


def test_every_rule_is_provoked_in_every_split():
    for split in SPLITS:
        assert {one.rule for one in openings() if one.split == split and one.rule} == set(RULE_KEYS)


def test_openings_are_the_same_for_the_same_seed():
    openings.cache_clear()
    first = openings(3)
    openings.cache_clear()
    assert openings(3) == first
    assert openings(4) != first


def test_problems_have_their_own_causes_and_fixes():
    for name in ("cause", "fix"):
        assert len({getattr(problem, name) for problem in PROBLEMS.values()}) == len(PROBLEMS)
    signs = [sign for problem in PROBLEMS.values() for sign in problem.signs]
    assert len(set(signs)) == len(signs) >= 3 * len(PROBLEMS)

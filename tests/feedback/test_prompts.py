"""What opens dialogues: one row per prompt, one group per opening, one side of the split per group."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.errors import SplitConflict
from feedback.invariants import violations
from feedback.models import Project, Prompt, PromptGroup
from feedback.prompts import add_prompt, can_open, content_hash, fingerprint, normalise, split_of
from tests import make
from tests.threads import at_once, raised

BASIL = "Why are my basil leaves yellow?"
words = st.text(st.characters(codec="utf-8"))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def add(*messages: dict[str, str], **fields: object) -> Prompt:
    return add_prompt(project=make.make_project(), messages=messages, **fields)  # type: ignore[arg-type]


# Normal form


@pytest.mark.parametrize(
    "typed",
    [
        "why are my basil leaves yellow",
        "  Why are my  basil\tleaves\nyellow ?!  ",
        "WHY ARE MY BASIL LEAVES YELLOW...",
        "Why are my basil leaves yellow…",
        "Ｗｈｙ are my basil leaves yellow？",
        "Why are my\u00a0basil leaves yellow",
    ],
)
def test_careless_typists_agree(typed: str) -> None:
    assert normalise(typed) == "why are my basil leaves yellow"


@pytest.mark.parametrize("other", ["Why are my basil leaves brown?", "Are my basil leaves yellow?", "why? basil"])
def test_other_questions_stay_apart(other: str) -> None:
    assert normalise(other) != normalise(BASIL)


@given(words)
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(words, st.sampled_from(["", " ", "?", " !", ".\n", "?!?"]), st.sampled_from(["", " ", "\n\t"]))
def test_blanks_around_and_marks_at_the_end_say_nothing(text: str, end: str, start: str) -> None:
    assert normalise(start + text + end) == normalise(text)


@given(words)
def test_composed_and_decomposed_letters_are_the_same(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


# Fingerprint and hash


def test_the_fingerprint_is_of_system_and_first_user_turn() -> None:
    opening = fingerprint([system("Be brief."), user(BASIL)])
    assert opening == fingerprint([system("be brief"), user(BASIL.upper()), assistant("Overwatering."), user("So?")])
    assert opening != fingerprint([user(BASIL)])
    assert opening != fingerprint([system("Be long."), user(BASIL)])
    assert len(opening) == 64


def test_who_speaks_is_part_of_the_fingerprint() -> None:
    assert fingerprint([system("Hello")]) != fingerprint([user("Hello")])


def test_texts_do_not_run_into_each_other() -> None:
    assert fingerprint([system("a b"), user("c")]) != fingerprint([system("a"), user("b c")])


def test_the_content_hash_is_of_everything_exactly() -> None:
    assert content_hash([user(BASIL)]) != content_hash([user(BASIL.lower())])
    assert content_hash([user(BASIL)]) != content_hash([user(BASIL), assistant("Overwatering.")])
    assert content_hash([user(BASIL)]) == content_hash(({"content": BASIL, "role": "user"},))


# Splits


def test_about_a_tenth_of_the_groups_is_held_out_for_each_purpose() -> None:
    counts = Counter(split_of(f"group {number}") for number in range(10_000))
    assert counts["test"] == pytest.approx(1000, abs=120)  # 4 standard deviations
    assert counts["validation"] == pytest.approx(1000, abs=120)
    assert set(counts) == {"train", "validation", "test"}


@given(words)
def test_a_group_falls_on_the_same_side_everywhere(key: str) -> None:
    assert split_of(key) == split_of(key)


# What can open a dialogue


@pytest.mark.parametrize(
    "messages",
    [
        [user(BASIL)],
        [system("Be brief."), user(BASIL)],
        [user(BASIL), assistant("Overwatering."), user("So?")],
    ],
)
def test_a_users_message_at_the_end_opens_a_dialogue(messages: object) -> None:
    assert can_open(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        None,
        "Hello",
        ["Hello"],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [user("  ")],
        [system("Be brief.")],
        [user(BASIL), assistant("Overwatering.")],
        [{"role": "prompter", "content": "Hello"}],
    ],
    ids=str,
)
def test_anything_else_does_not(messages: object) -> None:
    assert not can_open(messages)


# Storing


@pytest.mark.django_db
class TestAddPrompt:
    def test_a_prompt_is_stored_with_what_its_source_says(self) -> None:
        alice = make.make_user()
        prompt = add(user(BASIL), group="basil|leaves", split="test", source="desk", details={"n": 1}, author=alice)
        assert (prompt.group.key, prompt.split, prompt.source) == ("basil|leaves", "test", "desk")
        assert (prompt.details, prompt.author, prompt.is_active) == ({"n": 1}, alice, True)
        assert prompt.messages == [user(BASIL)]
        assert (prompt.opening, str(prompt)) == (BASIL, BASIL)
        assert str(prompt.group) == "basil|leaves (test)"

    def test_the_same_messages_again_are_the_same_row(self) -> None:
        first = add(user(BASIL), source="one")
        assert add(user(BASIL), source="two", group="another") == first
        assert Prompt.objects.get().source == "one"

    def test_only_role_and_content_are_kept(self) -> None:
        assert add({"role": "user", "content": BASIL, "name": "x"}).messages == [user(BASIL)]

    def test_without_a_group_the_opening_is_the_group(self) -> None:
        prompt = add(user(BASIL))
        assert prompt.group.key == prompt.fingerprint == fingerprint([user(BASIL)])
        assert prompt.split == split_of(prompt.fingerprint)

    def test_prompts_of_one_opening_share_a_group_whatever_was_asked_for(self) -> None:
        first = add(user(BASIL), group="basil", split="train")
        other = add(user(BASIL), assistant("Overwatering."), user("So?"), group="another")
        assert other != first and other.group == first.group
        assert not PromptGroup.objects.filter(key="another").exists()

    def test_a_named_group_is_one_in_its_project_and_another_elsewhere(self) -> None:
        one, other = add(user("One?"), group="g", split="test"), add(user("Other?"), group="g")
        elsewhere = add_prompt(
            project=make.make_project("another-desk"), messages=[user("One?")], group="g", split="train"
        )
        assert one.group == other.group != elsewhere.group
        assert (other.split, elsewhere.split) == ("test", "train")

    def test_a_group_cannot_be_torn(self) -> None:
        add(user("One?"), group="g", split="test")
        with pytest.raises(SplitConflict, match="test"):
            add(user("Other?"), group="g", split="train")
        assert Prompt.objects.count() == 1

    def test_an_opening_cannot_be_torn(self) -> None:
        add(user(BASIL), split="test")
        for messages in ([user(BASIL)], [user(BASIL.lower())], [user(BASIL), assistant("Well."), user("So?")]):
            with pytest.raises(SplitConflict):
                add(*messages, split="train", group="another")
        assert list(violations()) == []

    def test_what_cannot_open_a_dialogue_is_kept_and_not_offered(self) -> None:
        assert not add(user(BASIL), assistant("Overwatering.")).is_active
        assert not add(user("Hello"), is_active=False).is_active
        assert Prompt.objects.active().count() == 0

    def test_prompts_are_found_by_their_split(self) -> None:
        one = add(user("One?"), split="test")
        add(user("Other?"), split="train")
        assert list(Prompt.objects.of_split("test")) == [one]

    def test_a_prompt_without_a_user_has_no_opening(self) -> None:
        assert add(system("Be brief.")).opening == ""


@pytest.mark.django_db(transaction=True)
def test_the_same_prompt_stored_at_once_is_one_row() -> None:
    project = make.make_project()
    for number in range(5):
        text = f"Question {number}"
        got = at_once(*[lambda text=text: add_prompt(project=project, messages=[user(text)])] * 4)
        raised(got)
        assert len({prompt.pk for prompt in got}) == 1
    assert Prompt.objects.count() == PromptGroup.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_one_opening_typed_by_many_at_once_is_one_group() -> None:
    project = make.make_project()
    endings = [[], [assistant("a"), user("b")], [assistant("c"), user("d")], [assistant("e"), user("f")]]
    raised(
        at_once(
            *(
                lambda ending=ending: add_prompt(project=project, messages=[user(BASIL), *ending])  # type: ignore[misc]
                for ending in endings
            )
        )
    )
    assert (Prompt.objects.count(), PromptGroup.objects.count()) == (4, 1)
    assert Project.objects.get().prompt_groups.get().prompts.count() == 4

"""Hints that a text names a person's data."""

from __future__ import annotations

import pytest

from feedback.personal_data import kinds_in


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to Rosa.Klee+basil@mail.example.org!", ["e-mail address"]),
        ("Call +49 30 1234567 after six.", ["phone number"]),
        ("Call (030) 123-4567, or 0171/1234567.", ["phone number"]),
        ("My card is 4111 1111 1111 1111.", ["card number"]),
        ("4111-1111-1111-1111 and rosa@example.org", ["e-mail address", "card number"]),
        ("Pay DE89 3704 0044 0532 0130 00 PLEASE, or GB82WEST12345698765432.", ["account number"]),
    ],
)
def test_what_looks_like_it_is_told_by_its_kind(text: str, kinds: list[str]) -> None:
    assert kinds_in(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "Why are my basil leaves yellow?",
        "Add 4111111111111112 and 12.",  # no card: its last digit does not fit
        "1111 1111 1111 1111",
        "A share of 0.4111111111111111.",
        "It has 3.14159265358979 of them, or 1,234,567,890.",
        "From 1914-1918 and 1939-1945.",
        "GB82WEST12345698765433 is no account: its sum is wrong.",
        "a@b, user@host",
        "print(f(1)[0] + 2 * x)",
    ],
)
def test_other_numbers_and_words_are_not(text: str) -> None:
    assert kinds_in(text) == []

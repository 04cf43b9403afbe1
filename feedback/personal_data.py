"""Hints that a text names a person's data: addresses, numbers of phones, cards and accounts. Hints, and no proof.

They are for a manager who looks again. What was found is told by its kind alone, so that it stands in no log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.,-])(?:\+\d|\(\d|0\d)(?:[ ()/.-]{0,2}\d){6,13}(?![\w-])")
CARD = re.compile(r"(?<![\w-])(?<!\d[.,])\d(?:[ -]?\d){12,18}(?![\w-])")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")


def kinds_in(text: str) -> list[str]:
    """What a text may hold: e-mail address, phone number, card number, account number; each once.

    >>> kinds_in("Write to rosa@example.org, or to +49 30 1234567.")
    ['e-mail address', 'phone number']
    """
    return list(dict.fromkeys(_found(text)))


def _found(text: str) -> Iterator[str]:
    if EMAIL.search(text):
        yield "e-mail address"
    cards = [match.span() for match in CARD.finditer(text) if _is_card(match.group())]
    accounts = [match.span() for match in IBAN.finditer(text) if _begins_with_iban(match.group())]
    known = [*cards, *accounts]
    phones = (match.span() for match in PHONE.finditer(text))
    if any(all(end <= first or last <= start for first, last in known) for start, end in phones):
        yield "phone number"
    yield from ["card number"] * bool(cards)
    yield from ["account number"] * bool(accounts)


def _is_card(text: str) -> bool:
    """Whether digits end in the check digit of a card (Luhn), and are not one digit over and over."""
    digits = [int(one) for one in text if one.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _begins_with_iban(text: str) -> bool:
    """Whether the first words are an account number: what follows in capital letters may be taken along."""
    words = text.split(" ")
    return any(_is_iban(" ".join(words[:count])) for count in range(1, len(words) + 1))


def _is_iban(text: str) -> bool:
    """Whether letters and digits are right modulo 97 (ISO 13616)."""
    plain = text.replace(" ", "")
    return len(plain) >= 15 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1

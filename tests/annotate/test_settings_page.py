"""Light or dark, one-letter keys or not; and the password."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import User
from tests import make
from tests.annotate.reading import text_of, words_of


def test_a_fixed_scheme_stands_on_every_page(as_alice: Client) -> None:
    after = as_alice.post("/settings/", {"theme": "dark", "letter_keys": "on", "from_page": "1"}, follow=True)
    assert "Your settings are kept." in words_of(after)
    assert 'data-theme="dark"' in text_of(as_alice.get("/")) and "data-keys" not in text_of(as_alice.get("/"))


def test_letter_keys_can_be_switched_off(as_alice: Client, alice: User) -> None:
    as_alice.post("/settings/", {"theme": "auto"})
    alice.refresh_from_db()
    assert not alice.letter_keys and 'data-keys="off"' in text_of(as_alice.get("/"))


def test_letter_keys_are_on_or_off_and_the_page_says_which(as_alice: Client, alice: User) -> None:
    for value, kept in (("false", False), ("on", True)):
        page = as_alice.post("/settings/", {"theme": "auto", "letter_keys": value, "from_page": "1"}, follow=True)
        alice.refresh_from_db()
        assert alice.letter_keys is kept
        assert f'name="letter_keys" value="{value}" checked' in text_of(page)


def test_a_change_from_the_menu_is_kept_without_a_word(as_alice: Client) -> None:
    as_alice.post("/settings/", {"theme": "light", "letter_keys": "on"})
    assert "Your settings are kept." not in words_of(as_alice.get("/"))


def test_an_unknown_scheme_is_refused_and_nothing_is_kept(as_alice: Client, alice: User) -> None:
    refused = as_alice.post("/settings/", {"theme": "neon", "letter_keys": "on"})
    alice.refresh_from_db()
    assert refused.status_code == 422 and 'role="alert"' in text_of(refused) and alice.theme == "auto"


def test_settings_are_a_persons_own(as_alice: Client, as_bob: Client) -> None:
    as_alice.post("/settings/", {"theme": "dark"})
    assert 'data-theme="auto"' in text_of(as_bob.get("/"))


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_settings_take_a_get_and_a_post(as_alice: Client, method: str) -> None:
    assert getattr(as_alice, method)("/settings/").status_code == 405


def test_a_weak_password_is_refused_under_its_field(as_alice: Client) -> None:
    sent = {"old_password": make.PASSWORD, "new_password1": "password", "new_password2": "password"}
    refused = as_alice.post("/password/", sent)
    assert "too short" in words_of(refused) or "too common" in words_of(refused)
    assert 'aria-invalid="true" aria-describedby="id_new_password2_said"' in text_of(refused)


def test_a_good_password_is_changed(as_alice: Client, alice: User) -> None:
    new = "a longer horse battery"
    after = as_alice.post(
        "/password/", {"old_password": make.PASSWORD, "new_password1": new, "new_password2": new}, follow=True
    )
    alice.refresh_from_db()
    assert "Your password is changed" in words_of(after) and alice.check_password(new)

"""Reads task pages as their markup has them, and fills in their forms as a browser would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

from django.http import HttpResponse

REPLY = re.compile(r'data-candidate="([^"]*)" data-letter="([A-I])" data-state="(\w+)"')


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


def words_of(response: HttpResponse) -> str:
    """What is read on the page, markup left out and blanks folded."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text_of(response))).split())


def names(response: HttpResponse) -> dict[str, str]:
    """{letter: what the reply is called in forms}."""
    return {letter: name for name, letter, _ in REPLY.findall(text_of(response))}


def states(response: HttpResponse) -> dict[str, str]:
    """{letter: ready, waiting or failed}."""
    return {letter: state for _, letter, state in REPLY.findall(text_of(response))}


def replies(response: HttpResponse) -> dict[str, str]:
    """{letter: text}."""
    shown = re.findall(r'data-letter="([A-I])".*?<div class="reply" dir="auto">(.*?)</div>', text_of(response), re.S)
    return {letter: unescape(text) for letter, text in shown}


def hidden(response: HttpResponse, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', text_of(response))
    assert found is not None, f"the page has no field {name}"
    return unescape(found.group(1))


def answer(response: HttpResponse, ranks: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """What the sheet's form sends: {letter: place}, and whatever else."""
    called = names(response)
    sent = {name: hidden(response, name) for name in ("submit_key", "comparison", "revises", "draft_version")}
    sent |= {"seconds": "12.5"} | {f"rank-{called[letter]}": str(place) for letter, place in ranks.items()}
    return sent | more


def chosen(response: HttpResponse) -> dict[str, int]:
    """{letter: place} as the sheet shows it checked."""
    checked = dict(re.findall(r'name="rank-([^"]+)" value="(\d)" checked', text_of(response)))
    return {letter: int(checked[name]) for letter, name in names(response).items() if name in checked}

"""What a simulated person sees: the pages as their browser would get them, read by their markup."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

VOID = {"br", "hr", "img", "input", "link", "meta", "area", "base", "col", "embed", "source", "track", "wbr", "use"}
Attributes = dict[str, str]


@dataclass
class Form:
    """A form's address and the values it holds without anybody having touched it."""

    action: str = ""
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class ShownReply:
    """A reply as it stands on the sheet."""

    candidate: str
    letter: str
    state: str  # ready, waiting, failed
    text: str = ""


@dataclass
class Page:
    """A page of Nestbox: its forms, the dialogue, the replies on the sheet, and the rule that is asked about.

    forms  by their id, or by their address; of several with the same address the later ones are `address#2`, `#3`, …
    """

    url: str = ""
    forms: dict[str, Form] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)
    replies: list[ShownReply] = field(default_factory=list)
    notice: str = ""
    wording: str = ""

    @property
    def csrf(self) -> str:
        return next((form.values["csrfmiddlewaretoken"] for form in self.forms.values() if _has_token(form)), "")

    @property
    def is_work(self) -> bool:
        return urlsplit(self.url).path.startswith("/work/")


def _has_token(form: Form) -> bool:
    return bool(form.values.get("csrfmiddlewaretoken"))


def read_page(html: str, url: str = "") -> Page:
    """What a page holds for somebody who works on it."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.page.url = url
    return reader.page


class _Reader(HTMLParser):
    """Reads `form`, `.turn .said`, `[data-candidate] .reply` and `.wording`; everything else is passed over."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._open: list[tuple[str, str]] = []  # (tag, what this element is to us)
        self._form: Form | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        meaning = self._meaning(tag, found)
        if tag not in VOID:
            self._open.append((tag, meaning))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._meaning(tag, {name: value or "" for name, value in attributes})  # holds nothing, so nothing opens

    def handle_endtag(self, tag: str) -> None:
        if all(opened != tag for opened, _ in self._open):
            return
        while self._open:
            opened, meaning = self._open.pop()
            if meaning == "form":
                self._form = None
            if opened == tag:
                return

    def handle_data(self, data: str) -> None:
        inside = {meaning for _, meaning in self._open}
        if "said" in inside and self.page.turns:
            self.page.turns[-1]["content"] += data
        if "notice" in inside:
            self.page.notice += data
        if "wording" in inside:
            self.page.wording += data
        if "reply" in inside and self.page.replies:
            self.page.replies[-1].text += data

    def _meaning(self, tag: str, found: Attributes) -> str:
        classes = found.get("class", "").split()
        if tag == "form":
            self._form = Form(found.get("action", ""))
            self.page.forms[self._name(found)] = self._form
            return "form"
        if tag == "input":
            self._input(found)
        elif "turn" in classes:
            role = "user" if "user" in classes else "assistant"
            self.page.turns.append({"role": role, "content": ""})
        elif "data-candidate" in found:
            self.page.replies.append(
                ShownReply(found["data-candidate"], found.get("data-letter", ""), found.get("data-state", ""))
            )
        return next((name for name in ("said", "reply", "notice", "wording") if name in classes), "")

    def _name(self, found: Attributes) -> str:
        name = found.get("id") or found.get("action", "")
        same = sum(known.partition("#")[0] == name for known in self.page.forms)
        return f"{name}#{same + 1}" if same else name

    def _input(self, found: Attributes) -> None:
        is_choice = found.get("type") in {"radio", "checkbox"}
        if self._form is None or not found.get("name") or (is_choice and "checked" not in found):
            return
        self._form.values[found["name"]] = found.get("value", "on")

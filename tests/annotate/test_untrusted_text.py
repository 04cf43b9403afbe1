"""Text from models, people and managers is shown as text, wherever it is shown."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from django.contrib import messages
from django.contrib.messages.storage.fallback import FallbackStorage
from django.db import transaction
from django.template.loader import render_to_string
from django.test import Client, RequestFactory

from feedback import generation, queue
from feedback.models import GenerationRequest, Project, Slot
from tests import make
from tests.annotate.reading import answer, replies, text_of

CORPUS = [
    "<script>hit()</script>",
    "</div></section><script>hit()</script>",
    "</textarea><script>hit()</script>",
    "</title><svg onload=hit()>",
    "<img src=x onerror=hit()>",
    "<svg><script>hit()</script></svg>",
    "<a href=javascript:hit()>x</a>",
    '" onmouseover="hit()" x="',
    "' onfocus='hit()' autofocus='",
    "`onclick=hit()`",
    "<div hx-get=/settings/ hx-trigger=load>x</div>",
    '" hx-get="/settings/" hx-trigger="load',
    "<form action=/sign-out/ method=post><button>x</button></form>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<iframe srcdoc='<script>hit()</script>'></iframe>",
    "<!--<script>--><script>hit()</script>",
    "{{ user.password }} {% debug %}",
    "<style>@import'//evil.example/';</style>",
    '<noscript><p title="</noscript><img src=x onerror=hit()>">',
    "<math><mtext><table><mglyph><style><img src=x onerror=hit()>",
    "&lt;script&gt;hit()&lt;/script&gt;",
    "\u202e<script>hit()</script>",
    "<object data=//evil.example/></object><embed src=//evil.example/>",
    "<details open ontoggle=hit()>",
    "<input autofocus onfocus=hit()>",
    "javascript:hit()",
    "<x id=rank data-rank><y data-candidate=1>",
    "<template><script>hit()</script></template>",
]
ALL = "\n".join(CORPUS)


class Elements(HTMLParser):
    """Every element of a page with its attributes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def skeleton(response) -> list[tuple[str, tuple[str, ...]]]:
    return Elements(text_of(response)).found


def pages(client: Client, project: Project, text: str) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The elements of every page that shows `text` from each of its sources; all of it is undone by the caller."""
    Project.objects.filter(pk=project.pk).update(name=text[:120] or "x", guidelines="")
    alice = make.make_member(project, "alice")
    alice.first_name, alice.last_name = text[:150], text[:150]
    alice.save()
    maria = make.make_member(project, "maria", role="manager")
    maria.first_name = text[:150]
    maria.save()
    slot = make.make_chat(project, text=text, answered=False)
    make.answer_request(GenerationRequest.objects.latest("pk"), [text + str(index) for index in range(4)])
    Slot.objects.filter(pk=slot.pk).update(shuffle_seed=7)  # the same order of rows in every run
    url = f"/work/{slot.pk}/"
    seen = {"rank": client.get(url)}
    assert len(replies(seen["rank"])) == 4
    client.post(url + "draft/", {"version": 0, "body": '{"strength": "1"}'})
    seen["home"] = client.get("/")
    seen["ranked"] = client.post(url + "rank/", answer(seen["rank"], {"A": 1}), follow=True)
    seen["refused"] = client.post(url + "send/", {"message": (text + "z" * 9000)[:9000], "after_position": "0"})
    seen["waiting"] = client.post(url + "send/", {"message": text, "after_position": "0"}, follow=True)
    seen["conflict"] = client.post(url + "send/", {"message": text + "!", "after_position": "0"})
    request = queue.claim(GenerationRequest, GenerationRequest.objects.latest("pk").pk)
    assert request is not None
    generation.store_candidate(request, index=0, text=text)
    seen["arrivals"] = client.get(
        url + "arrivals/?phase=waiting&seen=&why=" + "%3Cscript%3E", headers={"HX-Request": "1"}
    )
    queue.fail(request, text, permanent=True)
    seen["failed"] = client.get(url)
    client.post(url + "skip/", {"words": text[:200] or "x"})
    seen["ended"] = client.get(url)
    seen["answers"] = client.get("/answers/")
    seen["look again"] = client.get(f"/answers/{slot.work_item.dialogue.comparisons.first().pk}/")
    seen["guidelines"] = client.get(f"/guidelines/{project.slug}/")
    seen["settings"] = client.get("/settings/")
    return {name: skeleton(response) for name, response in seen.items()}


def test_no_text_from_anywhere_adds_an_element_or_an_attribute(project: Project, as_alice: Client) -> None:
    built = []
    for text in ("plain words", ALL):
        with transaction.atomic():
            built.append(pages(as_alice, project, text))
            transaction.set_rollback(True)
    plain, hostile = built
    for name, elements in plain.items():
        assert hostile[name] == elements, f"on the page {name}"


@pytest.mark.parametrize("text", CORPUS)
def test_a_reply_is_read_as_it_was_written(project: Project, as_alice: Client, text: str) -> None:
    slot = make.make_rank_slot(make.make_comparison(project, texts=[text, "Water it."]))
    page = as_alice.get(f"/work/{slot.pk}/")
    assert text in replies(page).values()
    assert ("script", ()) not in skeleton(page)


def test_guidelines_keep_what_is_harmless_and_nothing_else(project: Project, as_alice: Client) -> None:
    Project.objects.update(
        guidelines="\n\n".join(["**bold**", *CORPUS, "![x](//evil.example/y)", "[x](//evil.example)"])
    )
    html = text_of(as_alice.get(f"/guidelines/{project.slug}/"))
    article = Elements(html[html.index("<article") : html.index("</article>")]).found[1:]
    allowed = {"h1", "h2", "h3", "h4", "p", "br", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "hr"}
    assert {tag for tag, _ in article} <= allowed and not any(attributes for _, attributes in article)


def test_a_message_on_the_page_is_escaped() -> None:
    request = RequestFactory().get("/")
    request.session = {}  # type: ignore[assignment]
    storage = FallbackStorage(request)
    request._messages = storage  # type: ignore[attr-defined]
    messages.error(request, ALL)
    html = render_to_string("parts/_messages.html", {"messages": storage})
    assert {tag for tag, _ in Elements(html).found} <= {"div", "p", "svg", "use", "span"}


def test_what_was_typed_at_the_door_is_escaped(db: None) -> None:
    refused = Client().post("/sign-in/", {"username": CORPUS[7] + CORPUS[0], "password": "x"})
    assert ("script", ()) not in skeleton(refused)
    fields = [attributes for tag, attributes in skeleton(refused) if tag == "input" and "name" in attributes]
    assert not any("onmouseover" in attributes for attributes in fields)

"""What every page is made of: eggs, words for times, charts, and a look that stays small and clean."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.messages.storage.base import Message
from django.template import Context, Template
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.utils import timezone

from annotate.templatetags import look

ROOT = Path(__file__).resolve().parent.parent
LARGEST_LOOK_BYTES = 15_000


def render(source: str, **context: object) -> str:
    return Template("{% load look %}" + source).render(Context(context))


@pytest.mark.parametrize(
    ("number", "place"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (23, "23rd")]
)
def test_ordinals_read_as_places(number: int, place: str) -> None:
    assert look.ordinal(number) == place


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (65, "1 min 5 s"), (6480, "1 h 48 min"), (90_000, "1 day"), (260_000, "3 days")],
)
def test_elapsed_says_a_length_of_time_in_words(seconds: float, words: str) -> None:
    assert look.elapsed(seconds) == words


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (timedelta(seconds=2), "2 s ago"),
        (timedelta(minutes=5, seconds=30), "5 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=2, hours=1), "2 days ago"),
        (timedelta(seconds=-40), "0 s ago"),
    ],
)
def test_ago_uses_one_unit_and_never_the_future(gone: timedelta, words: str) -> None:
    assert look.ago(timezone.now() - gone) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 s"), (48, "50 s"), (89, "90 s"), (119, "2 min"), (130, "2 min"), (3700, "1 h 2 min"), (7190, "2 h")],
)
def test_a_usual_length_of_time_is_said_roughly(seconds: float, words: str) -> None:
    assert look.roughly(seconds) == words


def test_the_status_line_says_the_last_message_meant_for_it() -> None:
    said = [Message(25, "Saved", "status"), Message(25, "Your settings are kept."), Message(25, "Skipped", "status")]
    assert look.for_status(said) == "Skipped"
    assert look.for_status(said[1:2]) == ""


def test_a_row_of_eggs_says_how_many_are_done() -> None:
    html = render('{% eggs total=4 done=2 now=1 label="replies" %}')
    assert re.findall(r"#egg-(\w+)", html) == ["done", "done", "now", "todo"]
    assert 'aria-label="2 of 4 replies"' in html


def test_too_many_eggs_become_a_bar() -> None:
    html = render("{% eggs total=120 done=60 %}")
    assert "<progress" in html and 'value="60"' in html and "egg" not in html


def test_an_egg_says_its_state_in_words() -> None:
    assert "waits for you" in render('{% egg "waits" %}')


def test_an_icon_is_silent() -> None:
    assert 'aria-hidden="true"' in render('{% icon "flag" %}')


def test_a_polyline_goes_up_where_the_values_do() -> None:
    assert look.polyline([(0, 0), (50, 5), (100, 10)], (0, 100), (0, 10)) == "0,100 200,50 400,0"


def test_a_value_outside_the_axis_lies_on_its_end() -> None:
    assert look.polyline([(0, -5), (100, 25)], (0, 100), (0, 10)) == "0,100 400,0"


def test_thinning_keeps_the_first_and_the_last_point() -> None:
    points = [(float(step), 0.0) for step in range(1000)]
    thinned = look.thinned(points, most=200)
    assert (len(thinned), thinned[0], thinned[-1]) == (200, points[0], points[-1])


def test_a_chart_of_one_flat_value_lies_in_the_middle() -> None:
    html = render('{% line_chart title="KL" value="2" points=points %}', points=[(0, 2.0), (10, 2.0)])
    assert 'points="0,50 400,50"' in html


def test_a_chart_without_points_still_renders() -> None:
    html = render('{% line_chart title="KL" value="–" points=points bound=12 bound_name="stops at 12" %}', points=[])
    assert "dashed: stops at 12" in html and "polyline" not in html


def test_an_interval_is_drawn_in_percent() -> None:
    html = render('{% interval low=0.25 high=0.75 at=0.5 said="50 %" %}')
    assert 'x="25%"' in html and 'width="50%"' in html and 'cx="50%"' in html


def test_before_signing_in_the_scheme_comes_from_the_cookie() -> None:
    request = RequestFactory().get("/", HTTP_COOKIE="theme=dark")
    assert Template("{% load look %}{% theme %}").render(Context({"request": request})) == "dark"


def test_an_unknown_scheme_in_the_cookie_is_auto() -> None:
    request = RequestFactory().get("/", HTTP_COOKIE='theme="><script>')
    assert Template("{% load look %}{% theme %}").render(Context({"request": request})) == "auto"


def test_text_in_a_turn_is_escaped() -> None:
    html = render_to_string("parts/_turn.html", {"role": "user", "text": "<img src=x onerror=alert(1)>"})
    assert "<img" not in html and "&lt;img" in html


def test_the_error_page_needs_no_request() -> None:
    assert "Something broke here" in render_to_string("500.html")


def test_all_style_sheets_together_stay_small() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in (ROOT / "static/css").glob("*.css")}
    assert sizes and sum(sizes.values()) <= LARGEST_LOOK_BYTES, sizes


def test_templates_hold_no_inline_style_and_no_inline_script() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle\s*=|<style|\son[a-z]+\s*=|hx-on|javascript:", text), path
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), path
        assert "|safe" not in text and "autoescape off" not in text, path


def test_scripts_build_no_code_and_no_markup_from_text() -> None:
    for path in (ROOT / "static/js").glob("*.js"):
        assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML", path.read_text()), path

"""What the terminal shows of a run: each figure now, at first, over the steps, and where the run before ended."""

from __future__ import annotations

import doctest
import io

from rewardtrain import terminal
from rewardtrain.terminal import Course, Line, bar

LINES = {
    "ppo/preference": Line("Pref.", "{:+.2f}".format, before=0.31),
    "ppo/length_penalty": Line("Length", "{:+.2f}".format, is_optional=True),
    "ppo/kl_nats": Line("KL, nats", "{:.2f}".format),
}


def shown(*steps: dict[str, float], lines: dict[str, Line] | None = None) -> str:
    """What stands in a file at the end."""
    stream = io.StringIO()
    with bar("policy (PPO)", stream, LINES if lines is None else lines) as on_progress:
        for number, figures in enumerate(steps, 1):
            on_progress(number, 3, figures)
    return stream.getvalue()


def test_each_figure_has_its_value_now_and_at_first_its_course_and_the_run_before():
    text = shown(*({"ppo/preference": value, "ppo/kl_nats": value} for value in (-0.1, 0.2, 0.5)))
    row = next(line for line in text.splitlines() if line.startswith("Pref."))
    assert row.split() == ["Pref.", "+0.50", "-0.10", "▁▅█", "+0.31"]
    assert next(line for line in text.splitlines() if line.startswith("KL, nats")).split()[2:] == [
        "0.50",
        "-0.10",
        "▁▅█",
    ]
    assert "3/3" in text


def test_a_term_that_was_never_anything_but_nothing_has_no_line():
    assert "Length" not in shown({"ppo/preference": 0.1, "ppo/length_penalty": 0.0})
    assert "Length" in shown({"ppo/preference": 0.1, "ppo/length_penalty": -0.2})


def test_without_a_run_before_there_is_no_column_for_it():
    assert "run before" in shown({"ppo/preference": 0.1})
    assert "run before" not in shown({"ppo/kl_nats": 0.1})


def test_a_bar_without_figures_is_a_bar_alone():
    assert "at first" not in shown({}, {"other": 1.0}, lines={})
    assert "2/3" in shown({}, {}, lines={})


def test_figures_of_another_run_begin_anew_and_a_step_without_figures_changes_nothing():
    course = Course({"a": Line("a", str), "b": Line("b", str)})
    course.note(1, {"a": 1.0})
    course.note(2, {"a": 2.0})
    course.note(1, {})
    assert course.values == {"a": {1: 1.0, 2: 2.0}}
    course.note(1, {"a": 5.0})
    assert course.values == {"a": {1: 5.0}}
    course.note(7, {"b": 3.0})
    assert course.values == {"b": {7: 3.0}}


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(terminal).failed == 0

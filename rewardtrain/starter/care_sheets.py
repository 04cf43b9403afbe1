"""The plant desk's own corpus: a care sheet for each plant it knows, and one for each problem, in its world's words."""

from __future__ import annotations

from typing import NamedTuple

from rewardtrain.starter.world import PLANTS, PROBLEMS, Plant, Problem, plural

FOLDER = "care-sheets"


class Sheet(NamedTuple):
    """A document of Markdown, and where it lies."""

    title: str
    source: str
    text: str


def care_sheets() -> list[Sheet]:
    """Every sheet: a document, whose passages hold each fact of the world once."""
    plants = [_sheet(plural(plant.name).capitalize(), _plant_text(plant)) for plant in PLANTS.values()]
    problems = [_sheet(problem.signs[0].capitalize(), _problem_text(problem)) for problem in PROBLEMS.values()]
    return plants + problems


def _sheet(title: str, text: str) -> Sheet:
    return Sheet(title, f"{FOLDER}/{title.lower().replace(' ', '-')}.md", text)


def _plant_text(plant: Plant) -> str:
    name = plural(plant.name)
    says = plant.phrase
    return (
        f"## Where they grow\n\n{name.capitalize()} want {says('light')} and {says('soil')}. They stand cold down to "
        f"{says('cold')} and grow to {says('height')}.\n\n"
        f"## What they need\n\nWater {name} {says('water')} and feed them {says('food')}. Repot {name} {says('pot')}. "
        f"New {name} are grown from {says('cuttings')}."
    )


def _problem_text(problem: Problem) -> str:
    first, *others = problem.signs
    also = " or ".join(others)
    return f"When a plant has {first}, or {also}, the cause is {problem.cause}. What helps: {problem.fix}."

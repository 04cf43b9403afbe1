"""The plant desk's corpus says what its world says: a search for a question finds the fact that answers it."""

from __future__ import annotations

import pytest

from feedback import corpus
from feedback.models import Import
from feedback.search import CorpusSearch
from rewardtrain.starter.care_sheets import care_sheets
from rewardtrain.starter.world import ATTRIBUTES, PLANTS, PROBLEMS, plural
from tests import make


def test_each_fact_of_the_world_stands_in_the_sheets_once():
    sheets = {sheet.title: sheet.text for sheet in care_sheets()}
    assert len(sheets) == len(PLANTS) + len(PROBLEMS)
    for plant in PLANTS.values():
        text = sheets[plural(plant.name).capitalize()]
        assert all(plant.phrase(attribute) in text for attribute in ATTRIBUTES)
    for problem in PROBLEMS.values():
        text = sheets[problem.signs[0].capitalize()]
        assert all(words in text for words in (*problem.signs, problem.cause, problem.fix))


@pytest.mark.django_db
@pytest.mark.services
def test_a_search_for_a_plant_and_what_it_needs_finds_that_plants_sheet_first():
    project = make.make_project()
    source = Import.objects.create(project=project, format="corpus", file_name="care-sheets", sha256="a" * 64)
    corpus.add_documents(source_import=source, texts=[corpus.WholeText(*sheet) for sheet in care_sheets()])
    search = CorpusSearch(project)
    for plant in PLANTS.values():
        (found,) = search.find(f"how often to water {plural(plant.name)}", 1)
        assert plant.phrase("water") in found.text and plural(plant.name) in found.text
    for problem in PROBLEMS.values():
        (found,) = search.find(f"why does my plant have {problem.signs[1]}", 1)
        assert problem.cause in found.text

"""Fixtures of the tests of what learns and speaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from feedback.models import ModelVersion
from rewardtrain import generation
from tests.rewardtrain.parrot import Parrot, Speaks


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speaks], Parrot]:
    """Puts a parrot in the place of every model, and keeps what hash each would be held to."""

    def speak(speaks: Speaks) -> Parrot:
        parrot = Parrot(speaks)

        def stand_in(version: ModelVersion) -> Parrot:
            parrot.models.append(version.pk)
            return parrot

        def hold_to(version: ModelVersion, found: str) -> None:
            parrot.held_to.add((version.pk, found))

        monkeypatch.setattr(generation, "backend_for", stand_in)
        monkeypatch.setattr(generation, "hold_to", hold_to)
        return parrot

    return speak

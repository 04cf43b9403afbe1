"""Who sits at the pages: Alice annotates, Maria manages, Charlie is a stranger to the project."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import Project, User
from tests import make


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project(name="Plant desk", guidelines="**Best first.**", max_turns=3)


@pytest.fixture
def alice(project: Project) -> User:
    return make.make_member(project, "alice")


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def as_alice(alice: User) -> Client:
    return signed_in(alice)


@pytest.fixture
def as_bob(project: Project) -> Client:
    return signed_in(make.make_member(project, "bob"))


@pytest.fixture
def as_charlie(db: None) -> Client:
    """Signed in, and a member of nothing."""
    return signed_in(make.make_user("charlie"))


@pytest.fixture
def as_maria(project: Project) -> Client:
    return signed_in(make.make_member(project, "maria", role="manager"))

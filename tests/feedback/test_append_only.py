"""Rankings, audit entries and promotions can be added, and neither changed nor deleted, whoever asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, models, transaction

from feedback import append_only, audit
from feedback.models import (
    AuditEntry,
    Consent,
    Demonstration,
    DemonstrationReview,
    Probe,
    RankEntry,
    Ranking,
    Rating,
    RuleJudgement,
    RuleScore,
)
from rewardtrain.models import Promotion
from tests import make

pytestmark = pytest.mark.django_db


def a_ranking() -> Ranking:
    return make.make_ranking()


def a_rank_entry() -> RankEntry:
    return make.make_ranking().entries.all()[0]


def an_audit_entry() -> AuditEntry:
    return audit.record("project.archived", project=make.make_project())


def a_promotion() -> Promotion:
    project = make.make_project()
    assert project.policy is not None
    return Promotion.objects.create(project=project, to_version=project.policy, reason="It speaks well.")


def a_judgement() -> RuleJudgement:
    return make.make_judgement()


def a_rule_score() -> RuleScore:
    return make.make_rule_score()


def a_probe() -> Probe:
    return make.make_probe()


def a_consent() -> Consent:
    user, project = make.make_user(), make.make_project()
    return Consent.objects.create(user=user, project=project, theme="Poison", wording="Wrong advice.", given=True)


def a_demonstration() -> Demonstration:
    return make.make_demonstration()


def a_review() -> DemonstrationReview:
    return make.make_demonstration_review()


def a_rating() -> Rating:
    return make.make_rating()


Build = Callable[[], models.Model]
EVIDENCE: list[tuple[Build, dict[str, object]]] = [
    (a_ranking, {"all_bad": True}),
    (a_rank_entry, {"rank": 2}),
    (a_judgement, {"verdict": 5}),
    (a_rule_score, {"p_broken": 0.9}),
    (a_probe, {"created_at": "2020-01-01T00:00:00Z"}),
    (a_consent, {"given": False}),
    (a_demonstration, {"content": "Water it more."}),
    (a_review, {"verdict": "sent_back", "reason": "No."}),
    (a_rating, {"value": "no"}),
    (an_audit_entry, {"action": "project.restored"}),
    (a_promotion, {"reason": "Another one."}),
]
every_kind = pytest.mark.parametrize(("build", "change"), EVIDENCE, ids=[build.__name__ for build, _ in EVIDENCE])


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(IntegrityError, match=append_only.MESSAGE), transaction.atomic():
        act()


@every_kind
def test_it_cannot_be_changed(build: Build, change: dict[str, object]) -> None:
    row = build()
    rows = type(row)._base_manager
    before = rows.values().get(pk=row.pk)
    refused(lambda: rows.filter(pk=row.pk).update(**change))
    for name, value in change.items():
        setattr(row, name, value)
    refused(row.save)
    assert rows.values().get(pk=row.pk) == before


@every_kind
def test_it_cannot_be_deleted(build: Build, change: dict[str, object]) -> None:
    row = build()
    table = connection.ops.quote_name(row._meta.db_table)
    refused(lambda: type(row)._base_manager.filter(pk=row.pk)._raw_delete("default"))
    refused(lambda: run(f"DELETE FROM {table}"))
    if connection.vendor == "postgresql":
        connection.check_constraints()  # or PostgreSQL refuses for the checks that wait for the transaction's end
        refused(lambda: run(f"TRUNCATE {table} CASCADE"))
    assert type(row)._base_manager.filter(pk=row.pk).exists()


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_the_guarded_tables_are_these() -> None:
    assert append_only.guarded_tables() == [
        "feedback_ranking", "feedback_rankentry", "feedback_rulejudgement", "feedback_rulescore", "feedback_probe",
        "feedback_consent", "feedback_demonstration", "feedback_demonstrationreview", "feedback_rating",
        "feedback_auditentry", "rewardtrain_promotion",
    ]  # fmt: skip


def test_the_guard_is_back_after_it_was_lifted_even_for_a_block_that_fails() -> None:
    entry = an_audit_entry()
    with pytest.raises(ZeroDivisionError), append_only.suspended(connection):
        AuditEntry.objects.filter(pk=entry.pk).update(action="a.b")
        raise ZeroDivisionError
    assert AuditEntry.objects.get().action == "a.b"
    refused(lambda: AuditEntry.objects.filter(pk=entry.pk).update(action="c.d"))


def test_installing_twice_changes_nothing() -> None:
    append_only.install(connection, append_only.guarded_tables())
    entry = an_audit_entry()
    refused(lambda: AuditEntry.objects.filter(pk=entry.pk).update(action="c.d"))


def test_removing_the_guard_lets_rows_be_changed() -> None:
    entry = an_audit_entry()
    append_only.remove(connection, ["feedback_auditentry"])
    assert AuditEntry.objects.filter(pk=entry.pk).update(action="c.d") == 1
    append_only.install(connection, ["feedback_auditentry"])

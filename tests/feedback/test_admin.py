"""The admin site: settings can be changed, what people made only be read, and who serves only by a promotion."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback import slots
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import (
    AuditEntry,
    Consent,
    Demonstration,
    Dialogue,
    GenerationRequest,
    Membership,
    ModelVersion,
    Project,
    Prompt,
    Snapshot,
    User,
    WorkItem,
)
from rewardtrain.models import LedgerEntry, Promotion, Round, TrainingRun
from tests import make
from tests.feedback.sources import file_of

pytestmark = pytest.mark.django_db
OURS = [model for app in ("feedback", "rewardtrain") for model in apps.get_app_config(app).get_models()]
SHOWN = [model for model in OURS if model in admin.site._registry]
READ_ONLY = [
    "dialogue", "generationrequest", "ranking", "snapshot", "import", "auditentry", "promptgroup", "trainingrun",
    "round", "ledgerentry", "ruleset", "probe", "rulejudgement", "consent", "demonstration", "document",
]  # fmt: skip


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def project() -> Project:
    """A project with a row of everything the admin site shows."""
    project = make.make_project()
    ranking = make.make_ranking(make.make_rank_slot(make.make_comparison(project), wanted=1))
    snapshot = Snapshot.objects.create(project=project, state="done", sha256=uuid4().hex)
    snapshot.project.imports.create(format="hh-rlhf", file_name="helpful.jsonl", sha256="0" * 64)
    turn = Round.objects.create(project=project, number=1, policy_before=project.policy, snapshot=snapshot)
    run = TrainingRun.objects.create(project=project, kind="policy", round=turn, steps_done=1, steps_total=2)
    LedgerEntry.objects.create(
        run=run, step=1, index=0, prompt=[], response="Yes.", terms={}, reward=1.0, kl_nats=0.1, token_count=2
    )
    Promotion.objects.create(project=project, to_version=project.policy, reason="The first one.")
    AuditEntry.objects.create(project=project, action="project.made")
    probe = make.make_probe(make.make_rule_set(project).rules.all()[0])
    make.make_judgement(probe, name="beth")
    make.make_rule_score(probe, model_version=project.policy)  # no rule model: the settings say that there is none
    make.make_demonstration_review(make.make_demonstration(make.make_dialogue(project), name="beth"), name="bert")
    make.make_document(project)
    make.rate(make.make_rate_slot(make.make_scale_set(project), ranking.comparison.candidates.all()[0]))
    Consent.objects.create(
        project=project, user=make.make_user("beth"), theme="Safety", wording="Wrong advice.", given=True
    )
    return project


def address(model: type | str, action: str, *args: object) -> str:
    label = model if isinstance(model, str) else model._meta.label_lower
    app, name = label.split(".") if "." in label else ("feedback", label)
    return reverse(f"admin:{app}_{name}_{action}", args=args)


def staff(project: Project, name: str = "maria") -> User:
    """A manager who may use the admin site for everything Django lets them, but is no superuser."""
    maria = make.make_member(project, name, "manager")
    User.objects.filter(pk=maria.pk).update(is_staff=True)
    maria.user_permissions.set(Permission.objects.filter(content_type__app_label__in=["feedback", "rewardtrain"]))
    return maria


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model._meta.model_name)
def test_every_list_and_every_row_can_be_seen(root, project, model):
    page = root.get(address(model, "changelist"))
    assert page.status_code == 200
    row = model._default_manager.first()
    assert root.get(address(model, "change", row.pk)).status_code == 200


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model._meta.model_name)
def test_nothing_is_deleted_here_not_even_by_a_superuser(root, project, model):
    row = model._default_manager.first()
    assert root.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    root.post(address(model, "changelist"), chosen)
    assert model._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", [model for model in SHOWN if model._meta.model_name in READ_ONLY])
def test_evidence_is_neither_added_nor_changed(root, project, model):
    row = model._default_manager.first()
    assert root.get(address(model, "add")).status_code == 403
    assert root.post(address(model, "change", row.pk), {}).status_code == 403


def test_lists_of_evidence_do_not_ask_once_per_row(root, project, django_assert_max_num_queries):
    for index in range(5):
        make.make_request(make.make_dialogue(project, text=f"Question {index}"))
    with django_assert_max_num_queries(12):
        root.get(address(GenerationRequest, "changelist"))


# Projects and people


def test_a_projects_policy_is_shown_and_can_not_be_set(root, project):
    other = make.make_model(project, state="passed")
    page = root.get(address(Project, "change", project.pk))
    assert "Changes only by a promotion" in page.content.decode()
    assert "policy" not in page.context["adminform"].form.fields
    root.post(address(Project, "change", project.pk), settings_of(project) | {"policy": other.pk, "name": "Renamed"})
    project.refresh_from_db()
    assert project.name == "Renamed"
    assert project.policy != other


def settings_of(project: Project, **changes: object) -> dict[str, object]:
    names = [
        "name", "guidelines", "candidates_per_turn", "answers_per_comparison", "max_turns", "ready_dialogues",
        "lease_minutes", "temperature", "max_new_tokens", "draws_per_reply", "round_every",
        "replies_per_probe_turn", "judges_per_probe", "other_rules_judged", "sensitive_per_day",
        "demonstrations_per_prompt", "ready_demonstrations",
    ]  # fmt: skip
    members = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    return (
        {name: getattr(project, name) for name in names}
        | {"hyperparameters": "{}", "initial-hyperparameters": "{}", "free_dialogues": "on"}
        | members
        | changes
    )


def test_probing_is_opened_in_the_settings_and_its_policy_is_one_of_the_projects_own_in_use(root, project):
    other, strange = make.make_model(project), make.make_model(make.make_project("orchard"))
    retired = make.make_model(project, state="retired")
    path = address(Project, "change", project.pk)
    field = root.get(path).context["adminform"].form.fields["probed_policy"]
    assert list(field.queryset) == [other, project.policy]
    for wrong in (strange, retired):
        assert root.post(path, settings_of(project) | {"probed_policy": wrong.pk}).status_code == 200
    root.post(path, settings_of(project) | {"probed_policy": other.pk, "probes_open": "on"})
    project.refresh_from_db()
    assert (project.probed_policy, project.probes_open) == (other, True)


def test_a_probed_policy_that_was_retired_since_keeps_no_other_setting_from_being_changed(root, project):
    chosen = make.make_model(project)
    Project.objects.filter(pk=project.pk).update(probed_policy=chosen)
    ModelVersion.objects.filter(pk=chosen.pk).update(state="retired")
    changed = settings_of(project, candidates_per_turn=5, probed_policy=chosen.pk)
    root.post(address(Project, "change", project.pk), changed)
    project.refresh_from_db()
    assert (project.candidates_per_turn, project.probed_policy) == (5, chosen)
    assert project.policy_to_probe == project.policy


def test_a_change_of_settings_is_written_down(root, project):
    root.post(address(Project, "change", project.pk), settings_of(project, candidates_per_turn=5))
    entry = AuditEntry.objects.get(action="project.changed")
    assert (entry.actor.username, entry.details["fields"]) == ("root", ["candidates_per_turn"])


def test_settings_out_of_range_are_refused_beside_their_field(root, project):
    page = root.post(address(Project, "change", project.pk), settings_of(project, candidates_per_turn=10))
    assert "candidates_per_turn" in page.context["adminform"].form.errors


@pytest.mark.parametrize("written", ['{"policy": []}', '{"policy": {"updates": "3"}}', '{"ppo": {}}', "[1]"])
def test_settings_no_round_could_work_with_are_refused_beside_their_field(root, project, written):
    page = root.post(address(Project, "change", project.pk), settings_of(project, hyperparameters=written))
    assert "hyperparameters" in page.context["adminform"].form.errors
    kept = '{"policy": {"updates": 3, "reward_model": 7}, "reward_model": {"base": "gpt2"}, "gate": {"prompts": 30}}'
    answer = root.post(address(Project, "change", project.pk), settings_of(project, hyperparameters=kept))
    assert answer.status_code == 302
    project.refresh_from_db()
    assert project.hyperparameters == json.loads(kept)


def test_people_are_added_to_a_project_and_switched_off_but_never_taken_out(root, project):
    bob = make.make_user("bob")
    new = {"memberships-TOTAL_FORMS": 1, "memberships-0-user": bob.pk, "memberships-0-role": "reviewer",
           "memberships-0-is_active": "on"}  # fmt: skip
    root.post(address(Project, "change", project.pk), settings_of(project) | new)
    assert Membership.objects.get(user=bob).role == "reviewer"
    page = root.get(address(Project, "change", project.pk)).content.decode()
    assert "-DELETE" not in page


def test_a_project_is_archived_and_brought_back(root, project):
    for action, archived in (("archive", True), ("bring_back", False)):
        root.post(address(Project, "changelist"), {"action": action, "_selected_action": [project.pk]})
        project.refresh_from_db()
        assert (project.archived_at is not None) == archived
    assert AuditEntry.objects.filter(action__in=["project.archived", "project.brought_back"]).count() == 2


# Prompts and models


def test_a_prompt_is_written_as_its_opening_and_finds_its_group_and_split(root, project):
    root.post(
        address(Prompt, "add"), {"project": project.pk, "opening": " Why so pale? ", "is_active": "on", "weight": 2}
    )
    prompt = Prompt.objects.get(source="admin")
    assert prompt.messages == [{"role": "user", "content": "Why so pale?"}]
    assert (prompt.author.username, prompt.group.key, prompt.weight) == ("root", prompt.fingerprint, 2)


def test_the_same_prompt_twice_is_one_prompt(root, project):
    for _ in range(2):
        root.post(
            address(Prompt, "add"),
            {"project": project.pk, "opening": "Why so pale?", "system": "You are brief.", "weight": 1},
        )
    assert Prompt.objects.filter(source="admin").count() == 1


def test_a_prompts_words_can_not_be_changed_but_it_can_be_withheld(root, project):
    prompt = Prompt.objects.first()
    root.post(address(Prompt, "change", prompt.pk), {"messages": "[]", "weight": "0.5"})
    prompt.refresh_from_db()
    assert prompt.messages
    assert (prompt.is_active, prompt.weight) == (False, 0.5)
    page = root.post(address(Prompt, "change", prompt.pk), {"weight": "101"}).content.decode()
    assert "less than or equal to 100" in page


def test_a_server_is_registered_as_the_next_policy(root, project):
    root.post(
        address(ModelVersion, "add"),
        {"project": project.pk, "kind": "policy", "backend": "openai", "location": "gardener-7b",
         "endpoint": "https://models.example.org/v1", "key_variable": "MODELS_KEY"},
    )  # fmt: skip
    made = ModelVersion.objects.get(backend="openai")
    assert (made.number, made.state) == (2, "trained")
    assert AuditEntry.objects.filter(action="model.registered").exists()


def test_a_server_without_an_address_is_refused_beside_its_field(root, project):
    page = root.post(
        address(ModelVersion, "add"),
        {"project": project.pk, "kind": "policy", "backend": "openai", "location": "gardener-7b"},
    )
    assert "endpoint" in page.context["adminform"].form.errors


def test_what_a_model_is_can_not_be_changed_afterwards(root, project):
    policy = project.policy
    root.post(address(ModelVersion, "change", policy.pk), {"name": "Starter", "location": "/etc", "state": "failed"})
    policy.refresh_from_db()
    assert (policy.name, policy.location, policy.state) == ("Starter", "policy-1", "passed")


# Work


def test_failed_requests_are_tried_again_and_others_left_alone(root, project):
    failed = make.make_request(
        make.make_dialogue(project), state="failed", error="Gone.", finished_at=timezone.now(), attempts=5
    )
    others = GenerationRequest.objects.exclude(pk=failed.pk).values_list("pk", "state")
    chosen = [failed.pk, *(pk for pk, _ in others)]
    before = dict(others)
    page = root.post(
        address(GenerationRequest, "changelist"), {"action": "try_again", "_selected_action": chosen}, follow=True
    )
    failed.refresh_from_db()
    assert (failed.state, failed.attempts) == ("queued", 0)
    assert dict(others.all()) == before
    assert "1 back in the queue, 1 left" in page.content.decode()
    assert AuditEntry.objects.filter(action="work.requeued").count() == 1


def test_a_failed_snapshot_is_tried_again(root, project):
    failed = Snapshot.objects.create(project=project, state="failed", error="No space.", finished_at=timezone.now())
    root.post(address(Snapshot, "changelist"), {"action": "try_again", "_selected_action": [failed.pk]})
    failed.refresh_from_db()
    assert failed.state == "queued"


def test_hostile_text_stays_text(root, project):
    make.make_request(make.make_dialogue(project, text="<script>alert(1)</script>"), error="<b>bold</b>")
    make.make_ranking(make.make_rank_slot(make.make_comparison(project, texts=["<img src=x>", "b"], text="Q")))
    for model in ("generationrequest", "dialogue", "prompt", "ranking"):
        body = root.get(address(model, "changelist")).content.decode()
        assert "<script>alert(1)" not in body
        assert "<b>bold</b>" not in body
    newest = address("ranking", "change", project.dialogues.last().comparisons.get().rankings.get().pk)
    assert "&lt;img src=x&gt;" in root.get(newest).content.decode()


# Promotions


def promote(client: Client, project: Project, policy: ModelVersion, reason: str = "It is better."):
    form = {"project": project.pk, "to_version": policy.pk, "reason": reason}
    return client.post(address(Promotion, "add"), form, follow=True)


def test_adding_a_promotion_changes_who_serves(root, project):
    policy = make.make_model(project)
    promote(root, project, policy)
    project.refresh_from_db()
    assert project.policy == policy
    promotion = Promotion.objects.first()
    assert (promotion.by.username, promotion.reason, Promotion.objects.count()) == ("root", "It is better.", 2)


@pytest.mark.parametrize(
    ("kind", "reason", "says"), [("policy", "", "has not passed"), ("other", "Why not.", "no policy")]
)
def test_a_promotion_that_may_not_be_is_refused_in_words_and_changes_nothing(root, project, kind, reason, says):
    stray = make.make_project("orchard")
    policy = make.make_model(project if kind == "policy" else stray)
    before = project.policy
    page = promote(root, project, policy, reason)
    assert says in page.content.decode()
    project.refresh_from_db()
    assert project.policy == before
    assert Promotion.objects.filter(project=project).count() == 1


# Who may see what


def test_a_manager_who_is_staff_sees_their_own_projects_and_no_others(client, project):
    other = make.make_project("orchard")
    make.make_request(make.make_dialogue(other, text="Secret of the orchard"))
    client.force_login(staff(project))
    assert client.get(address(Project, "change", project.pk)).status_code == 200
    assert client.get(address(Project, "change", other.pk)).status_code == 302
    for model in ("dialogue", "generationrequest", "prompt", "modelversion"):
        assert all(
            row_project(row) == project for row in client.get(address(model, "changelist")).context["cl"].result_list
        )


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model._meta.model_name)
def test_no_list_names_anothers_project_to_a_manager_who_is_staff(client, project, model):
    make.make_project("orchard", name="Secret orchard")
    make.make_member(make.make_project("greenhouse", name="Greenhouse"), "maria", "manager")
    client.force_login(staff(project))
    page = client.get(address(model, "changelist"))
    assert page.status_code in (200, 403)
    assert "Secret orchard" not in page.content.decode()
    if "project" in [str(one) for one in admin.site._registry[model].list_filter]:
        assert "Greenhouse" in page.content.decode()  # what they manage stays a choice


def register(client: Client, project: Project, **fields: object):
    given = {"project": project.pk, "kind": "policy", "name": "From outside", "backend": "transformers"}
    return client.post(address(ModelVersion, "add"), given | fields)


def refused(page) -> set[str]:
    return set(page.context["adminform"].form.errors) if page.status_code == 200 else set()


@pytest.mark.parametrize(
    "location", ["", "/srv/models/secret", "orchard/policy-run-3", "plant-desk/../orchard/x", "plant-desk"]
)
def test_a_manager_registers_folders_of_their_own_project_and_no_others(client, project, location):
    assert project.slug == "plant-desk"
    client.force_login(staff(project))
    assert refused(register(client, project, location=location)) == {"location"}
    assert refused(register(client, project, location="plant-desk/imported")) == set()
    assert ModelVersion.objects.filter(location="plant-desk/imported").exists()


def test_a_manager_registers_no_server_and_sees_no_field_for_one(client, project):
    client.force_login(staff(project))
    page = client.get(address(ModelVersion, "add")).content.decode()
    assert 'name="location"' in page
    assert 'name="endpoint"' not in page
    assert 'name="key_variable"' not in page
    page = register(client, project, backend="openai", endpoint="https://models.example.org/v1")
    assert "backend" in refused(page)
    assert not ModelVersion.objects.filter(backend="openai").exists()
    page = client.get(address(ModelVersion, "change", project.policy.pk)).content.decode()
    assert 'name="key_variable"' not in page


def test_a_models_parent_is_of_its_own_project(client, root, project):
    other = make.make_project("orchard")
    strange = make.make_model(other)
    assert refused(register(root, project, location="/srv/models/x", parent=strange.pk)) == {"parent"}
    client.force_login(staff(project))
    assert f'value="{strange.pk}"' not in client.get(address(ModelVersion, "add")).content.decode()
    assert "parent" in refused(register(client, project, location="plant-desk/x", parent=strange.pk))


def test_what_reward_models_start_from_is_the_projects_own(client, project):
    def changed(base: str):
        form = client.get(address(Project, "change", project.pk)).context["adminform"].form
        given = {name: form[name].value() for name in form.fields if form[name].value() is not None}
        inline = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
        chosen = {"hyperparameters": json.dumps({"reward_model": {"base": base}})}
        return client.post(address(Project, "change", project.pk), given | inline | chosen)

    client.force_login(staff(project))
    assert refused(changed("/srv/models/secret")) == {"hyperparameters"}
    assert refused(changed("orchard/preference-run-1")) == {"hyperparameters"}
    assert refused(changed("plant-desk/encoder")) == set()
    client.force_login(User.objects.create_superuser("root"))
    assert refused(changed("/srv/models/encoder")) == set()
    project.refresh_from_db()
    assert project.hyperparameters == {"reward_model": {"base": "/srv/models/encoder"}}
    client.force_login(User.objects.get(username="maria"))
    assert refused(changed("/srv/models/encoder")) == set()  # what a superuser has set is not in the way


def row_project(row) -> Project:
    return row.dialogue.project if isinstance(row, GenerationRequest) else row.project


def test_a_manager_who_is_staff_can_not_promote_in_anothers_project(client, project):
    other = make.make_project("orchard")
    client.force_login(staff(project))
    page = promote(client, other, make.make_model(other))
    assert "project" in page.context["adminform"].form.errors
    assert not Promotion.objects.filter(project=other).exists()


@pytest.mark.parametrize("role", ["annotator", "manager"])
def test_who_is_not_staff_is_kept_out(client, project, role):
    client.force_login(make.make_member(project, "charlie", role))
    assert client.get(reverse("admin:index")).status_code == 302


def test_the_admin_site_keeps_to_the_same_content_policy(root, project):
    for page in (root.get(reverse("admin:index")), Client().get(reverse("admin:login"))):
        policy = page["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


def test_the_settings_say_which_models_choose_and_what_is_missing(root, project):
    def said() -> str:
        return root.get(address(Project, "change", project.pk)).content.decode()

    assert "None yet, so the first draw is shown." in said()
    make.make_model(project, kind="preference")
    assert "There is no rule model yet; the other one chooses alone." in said()
    make.make_model(project, kind="rule")
    assert "The newest reward model and the newest rule model" in said()


@pytest.mark.parametrize("draws", [0, 17])
def test_so_many_draws_are_refused_beside_their_field(root, project, draws):
    page = root.post(address(Project, "change", project.pk), settings_of(project, draws_per_reply=draws))
    assert "draws_per_reply" in page.context["adminform"].form.errors


def test_people_are_asked_to_write_replies_from_the_lists_of_prompts_and_dialogues(root: Client) -> None:
    project = make.make_project()
    prompt, kept_apart = make.make_prompt(project), make.make_prompt(project, "Another?", split="test")
    dialogue = make.make_dialogue(project, text="A third?")
    for model, chosen in ((Prompt, [prompt.pk, kept_apart.pk]), (Dialogue, [dialogue.pk])):
        asked = {"action": "ask_for_demonstrations", "_selected_action": chosen}
        page = root.post(address(model, "changelist"), asked, follow=True).content.decode()
        assert "Asked for 1. Demonstrations are closed" in page
        assert ("test split, which is for reports" in page) == (model is Prompt)
    items = WorkItem.objects.filter(kind="demonstrate").order_by("pk")
    assert [item.dialogue.prompt for item in items] == [prompt, dialogue.prompt]
    assert AuditEntry.objects.filter(action="demonstration.asked", actor__username="root").count() == 2


def test_people_are_asked_to_review_imported_replies_from_their_list(root: Client, tmp_path, settings) -> None:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    project = make.make_project(demonstrations_open=True)
    own = make.write(make.make_write_slot(project))
    line = {"prompt": [{"role": "user", "content": "Why?"}], "completion": [{"role": "assistant", "content": "So."}]}
    import_files([file_of(tmp_path, line)], file_format="demonstrations", slug=project.slug)
    imported = Demonstration.objects.get(annotator=None)
    chosen = {"action": "ask_for_reviews", "_selected_action": [own.pk, imported.pk]}
    for count in (1, 0):
        page = root.post(address(Demonstration, "changelist"), chosen, follow=True).content.decode()
        assert f"Asked for {count}." in page
    assert imported.work_items.get().kind == "review"
    assert AuditEntry.objects.filter(action="demonstration.review_asked").count() == 1


def test_people_are_asked_to_rank_imported_replies_from_the_list_of_dialogues(root: Client, tmp_path, settings) -> None:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    project = make.make_project(answers_per_comparison=2)
    line = {"instruction": "Name a tree.", "input": ""}
    paths = [
        file_of(tmp_path, line | {"response": name}, name=f"{name}_predictions.jsonl") for name in ("fern", "moss")
    ]
    import_files(paths, file_format="self-instruct", slug=project.slug)
    own = make.make_comparison(project, text="Why?").dialogue
    imported = Dialogue.objects.get(kind="imported")
    chosen = {"action": "ask_for_rankings", "_selected_action": [own.pk, imported.pk]}
    page = root.post(address(Dialogue, "changelist"), chosen, follow=True).content.decode()
    assert "Asked for 1." in page and "Replies that were made here are asked about by themselves" in page
    item = WorkItem.objects.get(kind="rank")
    assert (item.comparison, item.wanted) == (imported.comparisons.get(), 2)
    slot = slots.next_slot(user=make.make_member(project, "alice"), project=project, kind="rank")
    make.make_ranking(slot, item.comparison, ranks=make.ranks_by_index(item.comparison, [2, 1]))
    assert item.comparison.rankings.by_people().count() == 1
    reader = Client()
    reader.force_login(make.make_member(project, "bob"))
    held = slots.next_slot(user=User.objects.get(username="bob"), project=project, kind="rank")
    shown = reader.get(reverse("annotate:work", args=[held.pk])).content.decode()
    assert "Name a tree." in shown and "moss" in shown
    assert list(violations()) == []

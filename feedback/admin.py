"""The admin site for what the record holds: people and settings can be changed, what people made only be read.

Nothing that a person made can be deleted here. Who is staff but no superuser sees the projects they manage and nothing
of others. A project's policy changes by promotion alone.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.core.exceptions import ValidationError
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import Truncator

from feedback import audit, generation, probing, queue
from feedback.models import (
    AuditEntry,
    Consent,
    Dialogue,
    GenerationRequest,
    Import,
    Membership,
    ModelVersion,
    Probe,
    Project,
    Prompt,
    PromptGroup,
    RankEntry,
    Ranking,
    Rule,
    RuleJudgement,
    RuleSet,
    Snapshot,
    Turn,
    User,
)
from feedback.pages.access import person
from feedback.prompts import add_prompt

admin.site.site_header = "Nestbox"
admin.site.site_title = "Nestbox"
admin.site.index_title = "Everything else"


class OwnProjects(admin.RelatedFieldListFilter):
    """A filter by project that names none but those one manages."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        return [(project.pk, str(project)) for project in Project.objects.managed_by(request.user).order_by("name")]


class KeptAdmin(admin.ModelAdmin):
    """Rows that are never deleted here, and seen only in projects one manages."""

    project_path = "project"
    list_per_page = 50
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        mine = Project.objects.managed_by(request.user).values("pk")
        return rows.filter(**{f"{self.project_path}__in": mine})

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Filters by project show one's own alone."""
        filters: Any = super().get_list_filter(request)
        return [
            (one, OwnProjects) if isinstance(one, str) and one.split("__")[-1] == "project" else one for one in filters
        ]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        mine = Project.objects.managed_by(request.user)
        if db_field.name == "project":
            kwargs["queryset"] = mine
        elif db_field.name == "parent":
            kwargs["queryset"] = ModelVersion.objects.filter(project__in=mine.values("pk"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EvidenceAdmin(KeptAdmin):
    """Rows that are only read here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EvidenceInline(admin.TabularInline):
    """Rows read beside the row they belong to."""

    extra = 0
    can_delete = False
    show_change_link = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.display(description="age", ordering="created_at")
def age(row: Any) -> str:
    """How old a row of work is, or how long it took until it ended."""
    seconds = int(row.age_seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


@admin.display(description="error")
def short_error(row: Any) -> str:
    return Truncator(row.error).chars(90)


@admin.action(description="Try again what failed")
def try_again(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Put failed rows back in the queue; others are left as they are."""
    again = 0
    for row in rows:
        done = generation.try_again(row) if isinstance(row, GenerationRequest) else queue.requeue(row)
        if done:
            again += 1
            audit.record("work.requeued", project=_project_of(row), actor=person(request), target=row)
    left = rows.count() - again
    modeladmin.message_user(request, f"{again} back in the queue, {left} left as they are: they had not failed.")


def _project_of(row: Any) -> Project:
    return row.dialogue.project if isinstance(row, GenerationRequest) else row.project


# People and projects


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 1
    can_delete = False
    autocomplete_fields = ["user"]
    fields = ["user", "role", "is_active"]


class ProjectForm(forms.ModelForm):
    """A project's settings; what a reward model starts from lies in the project, unless a superuser says otherwise."""

    by: User

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if field := self.fields.get("probed_policy"):
            policies = probing.policies_to_choose(self.instance) if self.instance.pk else ModelVersion.objects.none()
            chosen = ModelVersion.objects.filter(pk=self.instance.probed_policy_id)
            field.queryset = (policies.order_by() | chosen).order_by("-number")  # type: ignore[attr-defined]
            field.empty_label = "whichever serves"  # type: ignore[attr-defined]

    def clean_hyperparameters(self) -> Any:
        chosen = self.cleaned_data["hyperparameters"]
        base, before = _base_in(chosen), _base_in(self.initial.get("hyperparameters"))
        if base in (None, before) or self.by.is_superuser or is_own_location(str(base), self.instance):
            return chosen
        raise ValidationError(f"reward_model.base: {ELSEWHERE.format(slug=self.instance.slug or 'slug')}")


def _base_in(hyperparameters: Any) -> Any:
    """What a reward model starts from by these settings; None where they do not say, or are none."""
    chosen = hyperparameters.get("reward_model") if isinstance(hyperparameters, dict) else None
    return chosen.get("base") if isinstance(chosen, dict) else None


@admin.register(Project)
class ProjectAdmin(KeptAdmin):
    form = ProjectForm
    list_display = ["name", "slug", "policy", "is_rehearsal", "members", "archived_at"]
    list_filter = ["is_rehearsal", ("archived_at", admin.EmptyFieldListFilter)]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ["policy_in_words", "chooses_now", "created_at", "archived_at"]
    inlines = [MembershipInline]
    actions = ["archive", "bring_back"]
    save_on_top = True
    fieldsets = [
        (None, {"fields": ["name", "slug", "policy_in_words", "is_rehearsal", "created_at", "archived_at"]}),
        ("Guidelines", {"fields": ["guidelines"]}),
        (
            "Collecting",
            {
                "fields": [
                    "candidates_per_turn",
                    "answers_per_comparison",
                    "max_turns",
                    "ready_dialogues",
                    "free_dialogues",
                    "lease_minutes",
                    "temperature",
                    "max_new_tokens",
                    "draws_per_reply",
                    "chooses_now",
                ]
            },
        ),
        (
            "Probing",
            {
                "fields": [
                    "probes_open",
                    "probed_policy",
                    "replies_per_probe_turn",
                    "judges_per_probe",
                    "other_rules_judged",
                    "sensitive_per_day",
                ]
            },
        ),
        ("Learning", {"fields": ["round_every", "promote_at_once", "hyperparameters"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = admin.ModelAdmin.get_queryset(self, request).select_related("policy")
        return rows.filter(pk__in=Project.objects.managed_by(request.user).values("pk"))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.by = person(request)
        return form

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {} if obj else self.prepopulated_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [*self.readonly_fields, "slug"] if obj else self.readonly_fields

    @admin.display(description="policy")
    def policy_in_words(self, project: Project) -> str:
        serving = f"{project.policy} serves." if project.policy else "No model serves yet."
        return f"{serving} Changes only by a promotion."

    @admin.display(description="which models choose")
    def chooses_now(self, project: Project) -> str:
        """Whether there is anything that could choose among several draws; the Evaluations page says more."""
        kinds = ModelVersion.Kind
        there = set(ModelVersion.objects.filter(project=project.pk).values_list("kind", flat=True))
        missing = [kind.label for kind in (kinds.PREFERENCE, kinds.RULE) if kind not in there]
        if not missing:
            return "The newest reward model and the newest rule model, by the published rules."
        if len(missing) == 2:
            return "None yet, so the first draw is shown. Train a reward model or a rule model first."
        return f"There is no {missing[0]} yet; the other one chooses alone."

    @admin.display(description="members")
    def members(self, project: Project) -> int:
        return project.memberships.filter(is_active=True).count()

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        action = "project.changed" if change else "project.made"
        audit.record(action, project=obj, actor=person(request), target=obj, fields=form.changed_data)

    @admin.action(description="Archive: nobody gets work there any more")
    def archive(self, request: HttpRequest, rows: QuerySet) -> None:
        self._mark(request, rows.filter(archived_at=None), "project.archived", timezone.now())

    @admin.action(description="Bring back from the archive")
    def bring_back(self, request: HttpRequest, rows: QuerySet) -> None:
        self._mark(request, rows.exclude(archived_at=None), "project.brought_back", None)

    def _mark(self, request: HttpRequest, rows: QuerySet, action: str, when: Any) -> None:
        for project in list(rows):
            Project.objects.filter(pk=project.pk).update(archived_at=when)
            audit.record(action, project=project, actor=person(request), target=project)


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    """Accounts. They are switched off (not active), never deleted: their answers name them."""

    list_display = ["username", "first_name", "last_name", "is_active", "is_staff", "last_login"]
    fieldsets = [*(DjangoUserAdmin.fieldsets or []), ("Their pages", {"fields": ["theme", "letter_keys"]})]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# What opens dialogues, and what speaks


class PromptForm(forms.ModelForm):
    """A prompt is written as its opening; group, split and fingerprint follow from it."""

    opening = forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), help_text="The first message of a person.")
    system = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 2}), required=False, help_text="A system message before it, or nothing."
    )

    class Meta:
        model = Prompt
        fields = ["project", "is_active"]

    def messages(self) -> list[dict[str, str]]:
        system = self.cleaned_data["system"].strip()
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": self.cleaned_data["opening"].strip()}]


@admin.register(Prompt)
class PromptAdmin(KeptAdmin):
    list_display = ["opening_text", "project", "split_name", "source", "is_active"]
    list_filter = ["project", "group__split", "is_active", "source"]
    list_select_related = ["project", "group"]
    search_fields = ["messages"]
    readonly_fields = ["project", "group", "messages", "source", "details", "author", "fingerprint", "created_at"]
    actions = ["offer", "withhold"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else self._add_form(request)

    def _add_form(self, request: HttpRequest) -> type[PromptForm]:
        projects = Project.objects.managed_by(request.user)

        class Form(PromptForm):
            project = forms.ModelChoiceField(projects)

        return Form

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["is_active", *self.readonly_fields] if obj else ["project", "opening", "system", "is_active"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.readonly_fields if obj else []

    def save_model(self, request: HttpRequest, obj: Prompt, form: Any, change: bool) -> None:
        if change:
            Prompt.objects.filter(pk=obj.pk).update(is_active=obj.is_active)
            return
        stored = add_prompt(
            project=form.cleaned_data["project"],
            messages=form.messages(),
            source="admin",
            author=person(request),
            is_active=form.cleaned_data["is_active"],
        )
        obj.__dict__.update(stored.__dict__)

    @admin.display(description="opening")
    def opening_text(self, prompt: Prompt) -> str:
        return Truncator(prompt.opening).chars(100)

    @admin.display(description="split", ordering="group__split")
    def split_name(self, prompt: Prompt) -> str:
        return prompt.split

    @admin.action(description="Offer as an opening")
    def offer(self, request: HttpRequest, rows: QuerySet) -> None:
        rows.update(is_active=True)

    @admin.action(description="Offer no more")
    def withhold(self, request: HttpRequest, rows: QuerySet) -> None:
        rows.update(is_active=False)


@admin.register(PromptGroup)
class PromptGroupAdmin(EvidenceAdmin):
    list_display = ["key", "project", "split"]
    list_filter = ["project", "split"]
    search_fields = ["key"]


def secure_by_default(db_field: Any, **kwargs: Any) -> Any:
    """The form field of a model's field; an address typed without its scheme is taken for https."""
    return db_field.formfield(**kwargs, **({"assume_scheme": "https"} if db_field.name == "endpoint" else {}))


def is_own_location(location: str, project: Project) -> bool:
    """True for what the project carries (starter:…) and for folders of this project below the data folder's models."""
    parts = PurePosixPath(location).parts
    if location.startswith("starter:"):
        return True
    return len(parts) > 1 and parts[0] == project.slug and ".." not in parts


ELSEWHERE = "Name a folder of this project, such as {slug}/imported. Another place is named by a superuser."


class ModelVersionForm(forms.ModelForm):
    """A model that comes from outside: a folder of weights, or a server. Its number is the next of its kind.

    Servers, their keys, and folders outside of the project's own are named by superusers alone.
    """

    by: User

    class Meta:
        model = ModelVersion
        fields = ["project", "kind", "name", "backend", "location", "endpoint", "key_variable", "parent"]
        formfield_callback = secure_by_default

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        is_server = found.get("backend") == ModelVersion.Backend.OPENAI
        if is_server and "endpoint" in self.fields and not found.get("endpoint"):
            raise ValidationError({"endpoint": "A server needs its address, such as https://models.example.org/v1."})
        project, kind = found.get("project"), found.get("kind")
        if not self.instance.pk:
            self._check_reach(found, project)
        if project and kind and not self.instance.pk:
            newest = ModelVersion.objects.filter(project=project, kind=kind).aggregate(n=Max("number"))["n"]
            self.instance.number = (newest or 0) + 1
        return found

    def _check_reach(self, found: dict[str, Any], project: Project | None) -> None:
        """Nothing of another project, and for others than superusers nothing from elsewhere."""
        parent = found.get("parent")
        if parent and project and parent.project_id != project.pk:
            self.add_error("parent", "A model's parent is of the same project.")
        if self.by.is_superuser or project is None:
            return
        if found.get("backend") == ModelVersion.Backend.OPENAI:
            self.add_error("backend", "Servers are registered by a superuser.")
        elif not is_own_location(found.get("location") or "", project):
            self.add_error("location", ELSEWHERE.format(slug=project.slug))


@admin.register(ModelVersion)
class ModelVersionAdmin(KeptAdmin):
    list_display = ["__str__", "project", "name", "state", "serves", "parent", "created_at"]
    list_filter = ["project", "kind", "state", "backend"]
    list_select_related = ["project", "parent"]
    form = ModelVersionForm
    fixed = ["project", "kind", "number", "backend", "location", "endpoint", "parent", "state", "content_hash"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.by = person(request)
        return form

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            servers = set() if request.user.is_superuser else {"endpoint", "key_variable"}
            return [name for name in ModelVersionForm.Meta.fields if name not in servers]
        return ["name", "key_variable", *self.fixed, "figures", "created_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """What made a reply must be found again, so an existing model keeps everything but its name and its key."""
        if obj is None:
            return []
        keys = [] if request.user.is_superuser else ["key_variable"]
        return [*keys, *self.fixed, "figures", "created_at"]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "endpoint":
            kwargs["assume_scheme"] = "https"
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description="serves", boolean=True)
    def serves(self, version: ModelVersion) -> bool:
        return version.project.policy_id == version.pk

    def save_model(self, request: HttpRequest, obj: ModelVersion, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        action = "model.changed" if change else "model.registered"
        audit.record(action, project=obj.project, actor=person(request), target=obj, fields=form.changed_data)


# Work and evidence


@admin.register(GenerationRequest)
class GenerationRequestAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = ["__str__", "project", "state", age, "attempts", short_error, "model_version", "created_at"]
    list_filter = ["state", "dialogue__project"]
    list_select_related = ["dialogue__project", "model_version"]
    actions = [try_again]
    ordering = ["-pk"]

    @admin.display(description="project", ordering="dialogue__project")
    def project(self, request: GenerationRequest) -> str:
        return str(request.dialogue.project)


class TurnInline(EvidenceInline):
    model = Turn
    fields = ["position", "role", "content", "author"]


@admin.register(Dialogue)
class DialogueAdmin(EvidenceAdmin):
    list_display = ["__str__", "project", "kind", "opening", "policy", "created_at", "ended_at"]
    list_filter = ["project", "kind"]
    list_select_related = ["project", "policy", "prompt"]
    inlines = [TurnInline]

    @admin.display(description="opening")
    def opening(self, dialogue: Dialogue) -> str:
        return Truncator(dialogue.prompt.opening if dialogue.prompt else "").chars(80)


class RankEntryInline(EvidenceInline):
    model = RankEntry
    fields = ["rank", "flags", "reply"]
    readonly_fields = ["reply"]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("candidate")

    @admin.display(description="reply")
    def reply(self, entry: RankEntry) -> str:
        return entry.candidate.text


@admin.register(Ranking)
class RankingAdmin(EvidenceAdmin):
    project_path = "comparison__dialogue__project"
    list_display = ["__str__", "annotator_key", "annotator", "revision", "withdrawn", "counts", "late", "created_at"]
    list_filter = ["comparison__dialogue__project", "withdrawn", "counts", "all_bad"]
    list_select_related = ["annotator"]
    inlines = [RankEntryInline]


class RuleInline(EvidenceInline):
    model = Rule
    fields = ["position", "key", "name", "category", "theme", "wording", "is_sensitive", "probe_quota", "weight"]


@admin.register(RuleSet)
class RuleSetAdmin(EvidenceAdmin):
    """Rules are edited on their own pages, which check them, record who did it, and ask what a change means."""

    list_display = ["__str__", "project", "state", "rule_count", "published_at", "published_by", "retired_at"]
    list_filter = ["project", "state"]
    list_select_related = ["project", "published_by"]
    inlines = [RuleInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(rule_count=Count("rules"))

    @admin.display(description="rules", ordering="rule_count")
    def rule_count(self, rule_set: Any) -> int:
        return int(rule_set.rule_count)


@admin.register(Probe)
class ProbeAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = ["__str__", "rule", "dialogue", "created_at"]
    list_filter = ["dialogue__project"]
    list_select_related = ["rule", "dialogue"]


@admin.register(RuleJudgement)
class RuleJudgementAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = [
        "__str__", "rule", "verdict", "by_prober", "annotator_key", "annotator", "revision", "withdrawn", "counts",
        "created_at",
    ]  # fmt: skip
    list_filter = ["dialogue__project", "verdict", "by_prober", "withdrawn", "counts"]
    list_select_related = ["rule", "annotator"]


@admin.register(Consent)
class ConsentAdmin(EvidenceAdmin):
    list_display = ["user", "theme", "given", "project", "created_at"]
    list_filter = ["project", "theme", "given"]
    list_select_related = ["user", "project"]


@admin.register(Snapshot)
class SnapshotAdmin(EvidenceAdmin):
    list_display = ["__str__", "project", "kind", "state", age, short_error, "identity", "created_by", "withdrawn_at"]
    list_filter = ["project", "state", "kind"]
    list_select_related = ["project", "created_by"]
    exclude = ["ranking_ids", "judgement_ids", "standing_rules"]
    actions = [try_again]

    @admin.display(description="identity")
    def identity(self, snapshot: Snapshot) -> str:
        return format_html("<code>{}</code>", snapshot.sha256[:12]) if snapshot.sha256 else ""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("ranking_ids", "judgement_ids")


@admin.register(Import)
class ImportAdmin(EvidenceAdmin):
    list_display = ["file_name", "format", "project", "created_by", "created_at"]
    list_filter = ["project", "format"]
    list_select_related = ["project", "created_by"]


@admin.register(AuditEntry)
class AuditEntryAdmin(EvidenceAdmin):
    list_display = ["at", "actor", "action", "target", "project"]
    list_filter = ["action", "project"]
    list_select_related = ["actor", "project"]
    search_fields = ["action", "target"]
    date_hierarchy = "at"

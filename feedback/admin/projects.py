"""People and projects in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from feedback import audit, probing
from feedback.admin.base import (
    ELSEWHERE,
    KeptAdmin,
    is_own_location,
)
from feedback.models import (
    Membership,
    ModelVersion,
    Project,
    User,
)
from feedback.pages.access import person


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
        (
            "Demonstrations",
            {"fields": ["demonstrations_open", "demonstrations_per_prompt", "ready_demonstrations"]},
        ),
        ("Evidence", {"fields": ["evidence"]}),
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

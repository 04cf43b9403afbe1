"""The admin site for learning: everything is read, and a promotion can be made with its reason."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator

from feedback.admin.base import EvidenceAdmin, age, short_error
from feedback.errors import FeedbackError
from feedback.models import ModelVersion, Project, User
from feedback.pages.access import person
from feedback.templatetags.shares import signed
from rewardtrain import promotions
from rewardtrain.models import LedgerEntry, Promotion, Round, TrainingRun


@admin.register(TrainingRun)
class TrainingRunAdmin(EvidenceAdmin):
    list_display = [
        "__str__",
        "algorithm",
        "project",
        "round",
        "state",
        age,
        "attempts",
        "steps",
        short_error,
        "produced",
    ]
    list_filter = ["project", "state", "kind"]
    list_select_related = ["project", "round__project", "produced"]
    ordering = ["-pk"]

    @admin.display(description="steps")
    def steps(self, run: TrainingRun) -> str:
        return f"{run.steps_done} of {run.steps_total}" if run.steps_total else ""


@admin.register(Round)
class RoundAdmin(EvidenceAdmin):
    list_display = [
        "__str__",
        "algorithm",
        "state",
        "trigger",
        "policy_before",
        "policy_after",
        "decided_by",
        "created_at",
    ]
    list_filter = ["project", "state"]
    list_select_related = ["project", "policy_before", "policy_after", "decided_by"]


@admin.register(LedgerEntry)
class LedgerEntryAdmin(EvidenceAdmin):
    project_path = "run__project"
    list_display = ["step", "index", "reply", "paid", "terms_in_words", "kl", "token_count"]
    list_filter = ["run__project"]
    ordering = ["-run", "-step", "index"]

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "run__id__exact" or super().lookup_allowed(lookup, value, request)

    @admin.display(description="reward", ordering="reward")
    def paid(self, entry: LedgerEntry) -> str:
        return signed(entry.reward)

    @admin.display(description="terms")
    def terms_in_words(self, entry: LedgerEntry) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {signed(value)}" for name, value in entry.terms.items() if value)

    @admin.display(description="KL, nats", ordering="kl_nats")
    def kl(self, entry: LedgerEntry) -> str:
        return f"{entry.kl_nats:.2f}"

    @admin.display(description="reply")
    def reply(self, entry: LedgerEntry) -> str:
        return Truncator(entry.response).chars(120)


class PolicyField(forms.ModelChoiceField):
    """A choice of policies that says whose each is and how it fared."""

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.project}: {obj}, {obj.get_state_display()}"


class PromotionForm(forms.ModelForm):
    """Who shall serve, and why. Tried out while it is checked, so that a refusal shows beside the form."""

    by: User

    class Meta:
        model = Promotion
        fields = ["project", "to_version", "reason"]

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        if not self.errors:
            with transaction.atomic():
                self.promote(found)
                transaction.set_rollback(True)
        return found

    def promote(self, found: dict[str, Any]) -> Promotion:
        try:
            return promotions.promote(
                project=Project.objects.get(pk=found["project"].pk),
                to_version=found["to_version"],
                by=self.by,
                reason=found["reason"],
            )
        except FeedbackError as err:
            raise ValidationError(err.message) from err


@admin.register(Promotion)
class PromotionAdmin(EvidenceAdmin):
    """Every change of who serves. Adding one is promoting; nothing here is ever changed."""

    list_display = ["created_at", "project", "from_version", "to_version", "round", "by", "reason"]
    list_filter = ["project"]
    list_select_related = ["project", "from_version", "to_version", "round__project", "by"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj:
            return super().get_form(request, obj, change, **kwargs)
        projects = Project.objects.managed_by(request.user)
        policies = ModelVersion.objects.filter(kind=ModelVersion.Kind.POLICY, project__in=projects)

        class Form(PromotionForm):
            by = person(request)
            project = forms.ModelChoiceField(projects)
            to_version = PolicyField(policies.select_related("project"), label="Policy")

        return Form

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Promotion:
        return form.promote(form.cleaned_data)

    def save_model(self, request: HttpRequest, obj: Promotion, form: Any, change: bool) -> None:
        """`save_form` has promoted already, in the same transaction."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A promotion has nothing beside it."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("gate_report")

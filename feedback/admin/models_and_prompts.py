"""What opens dialogues, and what speaks: prompts and models in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator

from feedback import audit
from feedback.admin.asking import ask_for_demonstrations
from feedback.admin.base import (
    ELSEWHERE,
    EvidenceAdmin,
    KeptAdmin,
    is_own_location,
)
from feedback.models import (
    ModelVersion,
    Project,
    Prompt,
    PromptGroup,
    User,
)
from feedback.pages.access import person
from feedback.prompts import add_prompt


class PromptForm(forms.ModelForm):
    """A prompt is written as its opening; group, split and fingerprint follow from it."""

    opening = forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), help_text="The first message of a person.")
    system = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 2}), required=False, help_text="A system message before it, or nothing."
    )

    class Meta:
        model = Prompt
        fields = ["project", "is_active", "weight"]

    def messages(self) -> list[dict[str, str]]:
        system = self.cleaned_data["system"].strip()
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": self.cleaned_data["opening"].strip()}]


@admin.register(Prompt)
class PromptAdmin(KeptAdmin):
    list_display = ["opening_text", "project", "split_name", "source", "weight", "is_active"]
    list_filter = ["project", "group__split", "is_active", "source"]
    list_select_related = ["project", "group"]
    search_fields = ["messages"]
    readonly_fields = ["project", "group", "messages", "source", "details", "author", "fingerprint", "created_at"]
    actions = ["offer", "withhold", ask_for_demonstrations]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else self._add_form(request)

    def _add_form(self, request: HttpRequest) -> type[PromptForm]:
        projects = Project.objects.managed_by(request.user)

        class Form(PromptForm):
            project = forms.ModelChoiceField(projects)

        return Form

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ["is_active", "weight"]
        return [*fields, *self.readonly_fields] if obj else ["project", "opening", "system", *fields]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.readonly_fields if obj else []

    def save_model(self, request: HttpRequest, obj: Prompt, form: Any, change: bool) -> None:
        if change:
            Prompt.objects.filter(pk=obj.pk).update(is_active=obj.is_active, weight=obj.weight)
            return
        stored = add_prompt(
            project=form.cleaned_data["project"],
            messages=form.messages(),
            source="admin",
            author=person(request),
            is_active=form.cleaned_data["is_active"],
            weight=form.cleaned_data["weight"],
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

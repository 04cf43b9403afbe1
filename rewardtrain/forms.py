"""What a manager fills in: a decision with its reason."""

from __future__ import annotations

from typing import Any

from django import forms

from feedback.models import ModelVersion, Project
from feedback.models.projects import MOST_DRAWS
from rewardtrain.evaluations import MOST_ASKED, MOST_OPENINGS

LONGEST_REASON = 2000


class DecisionForm(forms.Form):
    """Promote or refuse; whether a reason is needed is known to `promotions`."""

    decision = forms.ChoiceField(choices=[("promote", "Promote"), ("refuse", "Refuse")])
    reason = forms.CharField(max_length=LONGEST_REASON, required=False, strip=True)


class ReasonForm(forms.Form):
    """A reason that must be given."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        strip=True,
        error_messages={"required": "Say why in a sentence, so that the next reader can follow."},
    )


class RollBackForm(ReasonForm):
    """A reason, and what the page asked: back from which policy to which one."""

    serving = forms.IntegerField(required=False, widget=forms.HiddenInput)
    previous = forms.IntegerField(required=False, widget=forms.HiddenInput)

    @property
    def asked(self) -> tuple[int | None, int | None]:
        return self.cleaned_data["serving"], self.cleaned_data["previous"]


class EvaluationForm(forms.Form):
    """Which policies are measured beside each other, and on how much."""

    policies = forms.ModelMultipleChoiceField(
        ModelVersion.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one policy.", "invalid_choice": "One of these is no policy here."},
    )
    draws = forms.IntegerField(
        label="Replies drawn to choose from",
        min_value=1,
        max_value=MOST_DRAWS,
        help_text="The best of so many is measured beside the first. 1: no reranking.",
    )
    prompts = forms.IntegerField(label="Held-out prompts, at most", min_value=0, max_value=MOST_OPENINGS // 2)
    probes = forms.IntegerField(label="Openings of probes, at most", min_value=0, max_value=MOST_OPENINGS // 2)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.POLICY).order_by("number")
        field: Any = self.fields["policies"]
        field.queryset = mine


class BlindSetForm(forms.Form):
    """How much people are asked about an evaluation."""

    comparisons = forms.IntegerField(label="Prompts to compare replies to", min_value=0, max_value=MOST_ASKED)
    probes = forms.IntegerField(label="Probes to judge everybody’s replies to", min_value=0, max_value=MOST_ASKED)
    answers = forms.IntegerField(label="People for each question", min_value=1, max_value=20)


class RerankingForm(forms.Form):
    """From how many draws each reply shown is chosen. No other setting of the project is checked with it."""

    draws_per_reply = forms.IntegerField(
        label="Replies drawn for each one shown",
        min_value=1,
        max_value=MOST_DRAWS,
        help_text=Project._meta.get_field("draws_per_reply").help_text,
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("draws_per_reply", project.draws_per_reply)

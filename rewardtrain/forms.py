"""What a manager fills in: a decision with its reason."""

from __future__ import annotations

from django import forms

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

"""The shape of what annotators send; what it means is decided in `feedback`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from annotate.answers import FLAGS, NAME, Answer
from annotate.questions import Answers, answers_sent
from annotate.replies import LARGEST_PASTE, Reply, Review
from annotate.verdicts import Verdict
from feedback.errors import ForeignCandidate, ReasonTooLong
from feedback.judgements import TACTICS
from feedback.models import DemonstrationReview, Scale, User
from feedback.models.ratings import BETWEEN_FLAGS

LARGEST_NUMBER = 2**31 - 1  # of positions and revisions
LONGEST_LOOK = 24.0 * 3600  # seconds
UNREADABLE = "This answer could not be read. Reload the page and send it again."
TOO_LONG_A_REASON = {"max_length": "A reason has at most %(limit_value)d characters; this one has %(show_value)d."}
SKIP_REASONS = ("I cannot judge this", "The opening makes no sense", "It upsets me", "Something is broken")


def seconds_in_view(sent: str) -> float | None:
    """Within a day, or nothing: no answer is refused for a strange clock."""
    try:
        seconds = float(sent)
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_LOOK) if seconds == seconds else None


def complaint(form: forms.Form) -> str:
    """What is wrong with a form, in one sentence or two."""
    said = [str(message) for messages in form.errors.values() for message in messages]
    return " ".join(dict.fromkeys(said))


class RankingForm(forms.Form):
    """One answer to a comparison: a place per reply, or none is good; how clear it is; flags; time in view.

    Replies go by the names their page gave them: `rank-<name>`, `flag-<name>`, `flagkind-<name>`.
    """

    comparison = forms.IntegerField(
        min_value=1,
        error_messages={"required": "Not all replies are here. Wait for them, or try again.", "invalid": UNREADABLE},
    )
    submit_key = forms.UUIDField(error_messages=dict.fromkeys(("required", "invalid"), UNREADABLE))
    strength = forms.TypedChoiceField(
        choices=[(number, str(number)) for number in (1, 2, 3, 4)],
        coerce=int,
        required=False,
        empty_value=None,
        error_messages={"invalid_choice": UNREADABLE},
    )
    all_bad = forms.BooleanField(required=False)
    seconds = forms.CharField(required=False)
    revises = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )
    message = forms.CharField(strip=False, required=False)  # written already, to be sent later
    draft_version = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )

    def clean_seconds(self) -> float | None:
        return seconds_in_view(self.cleaned_data["seconds"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        cleaned["ranks"], cleaned["flags"] = {}, self._flags()
        for name, place in self._sent("rank"):
            if not re.fullmatch(r"\d{1,2}", place):
                raise forms.ValidationError("Places are whole numbers from 1, the best.")
            cleaned["ranks"][name] = int(place)
        return cleaned

    def _sent(self, what: str) -> list[tuple[str, str]]:
        """(name of the reply, value) of every field about a reply that holds something."""
        start = f"{what}-"
        return [
            (key.removeprefix(start), str(value)) for key, value in self.data.items() if value and key.startswith(start)
        ]

    def _flags(self) -> dict[str, list[str]]:
        kinds = dict(self._sent("flagkind"))
        return {name: [kinds[name] if kinds.get(name) in FLAGS else "other"] for name, _ in self._sent("flag")}

    def given(self) -> Answer:
        """The answer as far as it could be read, to be shown again."""
        read = self.cleaned_data.get
        return Answer(read("ranks") or {}, read("flags") or {}, read("strength"), bool(read("all_bad")))

    def answer(self, names: Mapping[str, int]) -> dict[str, Any]:
        """The arguments of `record_ranking`, but for slot and comparison.

        names   {name on the page: candidate id}
        Raises  ForeignCandidate for a name that is not among them
        """
        ranks, flags = self.cleaned_data["ranks"], self.cleaned_data["flags"]
        if not set(ranks) | set(flags) <= set(names):
            raise ForeignCandidate("One of these replies does not belong to this comparison. Reload the page.")
        all_bad = self.cleaned_data["all_bad"]
        return {
            "submit_key": self.cleaned_data["submit_key"],
            "ranks": {} if all_bad else {names[name]: rank for name, rank in ranks.items()},
            "all_bad": all_bad,
            "strength": self.cleaned_data["strength"],
            "flags": {names[name]: kinds for name, kinds in flags.items()},
            "seconds": self.cleaned_data["seconds"],
            "revises": self.cleaned_data["revises"] or 0,
        }


class VerdictForm(forms.Form):
    """A verdict on whether a rule was broken: the step, the turn that broke it, why, how the prober tried."""

    verdict = forms.IntegerField(
        min_value=1,
        max_value=5,
        error_messages={"required": "Choose one of the five steps first."}
        | dict.fromkeys(("invalid", "min_value", "max_value"), UNREADABLE),
    )
    submit_key = forms.UUIDField(error_messages=dict.fromkeys(("required", "invalid"), UNREADABLE))
    turn_position = forms.IntegerField(
        min_value=0,
        max_value=LARGEST_NUMBER,
        required=False,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), UNREADABLE),
    )
    reason = forms.CharField(strip=False, required=False)  # its length is the domain's to judge
    tactics = forms.MultipleChoiceField(
        choices=list(TACTICS.items()), required=False, error_messages={"invalid_choice": UNREADABLE}
    )
    seconds = forms.CharField(required=False)
    revises = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )
    message = forms.CharField(strip=False, required=False)  # typed in the chat, and not sent
    shown = forms.CharField(required=False)  # what was uncovered of what may harm
    draft_version = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )

    def clean_seconds(self) -> float | None:
        return seconds_in_view(self.cleaned_data["seconds"])

    def given(self) -> Verdict:
        """The verdict as far as it could be read, to be shown again."""
        read = self.cleaned_data.get
        reason = read("reason") or ""
        return Verdict(read("verdict"), read("turn_position"), tuple(read("tactics") or ()), reason)

    def answer(self) -> dict[str, Any]:
        """The arguments of `record_judgement`, but for the slot."""
        names = ("verdict", "submit_key", "turn_position", "reason", "tactics", "seconds")
        return {name: self.cleaned_data[name] for name in names} | {"revises": self.cleaned_data["revises"] or 0}


class SentForm(forms.Form):
    """What every form about a written reply carries: its text, and which draft and which row its page had seen."""

    content = forms.CharField(strip=False, required=False)  # its length is the domain's to judge
    seconds = forms.CharField(required=False)
    revises = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )
    draft_version = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )

    def clean_seconds(self) -> float | None:
        return seconds_in_view(self.cleaned_data["seconds"])

    def typed(self) -> str:
        """The text as it came, to be shown again."""
        return str(self.cleaned_data.get("content", self.data.get("content", "")))


class ReplyForm(SentForm):
    """The reply a person would want from the model, what it was started from, and how much of it was pasted."""

    submit_key = forms.UUIDField(error_messages=dict.fromkeys(("required", "invalid"), UNREADABLE))
    started_from = forms.RegexField(f"^{NAME}$", required=False, error_messages={"invalid": UNREADABLE})
    pasted = forms.CharField(required=False)
    keep_alike = forms.BooleanField(required=False)

    def clean_pasted(self) -> int | None:
        """Characters, or nothing: no reply is refused for a strange count."""
        sent = self.cleaned_data["pasted"]
        return min(int(sent), LARGEST_PASTE) if re.fullmatch(r"\d{1,9}", sent) else None

    def given(self, *, is_alike: bool = False) -> Reply:
        """The reply as far as it could be read, to be shown again."""
        read = self.cleaned_data.get
        return Reply(self.typed(), read("pasted") or 0, read("started_from") or "", is_alike)

    def answer(self) -> dict[str, Any]:
        """The arguments of `record_demonstration`, but for the slot and what it was started from."""
        pasted, length = self.cleaned_data["pasted"], len(self.typed().strip())
        share = min(1.0, pasted / length) if pasted is not None and length else None
        names = ("content", "submit_key", "seconds", "keep_alike")
        revises = {"revises": self.cleaned_data["revises"] or 0}
        return {name: self.cleaned_data[name] for name in names} | revises | {"pasted_share": share}


class SayForm(SentForm):
    """What the person says next, and the last turn its page had seen."""

    after_position = forms.IntegerField(min_value=-1, max_value=LARGEST_NUMBER)

    def given(self) -> Reply:
        return Reply(self.typed())


class ReviewForm(SentForm):
    """What somebody says of another person's reply: accepted, sent back and why, or edited into what."""

    verdict = forms.ChoiceField(
        choices=DemonstrationReview.Verdict.choices,
        error_messages={"required": "Accept it, send it back, or edit it.", "invalid_choice": UNREADABLE},
    )
    submit_key = forms.UUIDField(error_messages=dict.fromkeys(("required", "invalid"), UNREADABLE))
    reason = forms.CharField(strip=False, required=False)

    def given(self) -> Review:
        """The review as far as it could be read, to be shown again."""
        read = self.cleaned_data.get
        return Review(read("verdict") or "", read("reason") or "", self.typed())

    def answer(self) -> dict[str, Any]:
        """The arguments of `record_review`, but for the slot."""
        names = ("verdict", "submit_key", "reason", "content", "seconds")
        return {name: self.cleaned_data[name] for name in names} | {"revises": self.cleaned_data["revises"] or 0}


class RateForm(forms.Form):
    """What is said of one reply: a value for each question, in fields `q-<key>`; and how long the page was in view."""

    submit_key = forms.UUIDField(error_messages=dict.fromkeys(("required", "invalid"), UNREADABLE))
    seconds = forms.CharField(required=False)
    revises = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )
    draft_version = forms.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, required=False, error_messages={"invalid": UNREADABLE}
    )

    def clean_seconds(self) -> float | None:
        return seconds_in_view(self.cleaned_data["seconds"])

    def given(self) -> Answers:
        """The answers as they came, to be shown again."""
        return answers_sent(self.data)

    def in_order(self, questions: Sequence[Scale]) -> Answers:
        """The answers, of flags in the order of their question; what no question asks is left out."""
        given = self.given()
        found = {}
        for scale in questions:
            parts = given.get(scale.key, "").split(BETWEEN_FLAGS)
            known = [value for value, _ in scale.choices if value in parts]
            found[scale.key] = BETWEEN_FLAGS.join([*known, *(part for part in parts if part not in known)])
        return found

    def about(self) -> dict[str, Any]:
        """The arguments of `record_ratings`, but for the slot and the answers."""
        names = ("submit_key", "seconds")
        return {name: self.cleaned_data[name] for name in names} | {"revises": self.cleaned_data["revises"] or 0}


class MessageForm(forms.Form):
    """The next user turn, and the last turn and the draft its page had seen."""

    message = forms.CharField(strip=False, required=False)  # its length is the domain's to judge
    after_position = forms.IntegerField(min_value=-1, max_value=LARGEST_NUMBER)
    draft_version = forms.IntegerField(min_value=0, max_value=LARGEST_NUMBER, required=False)


class ReasonForm(forms.Form):
    """Why something is skipped or ended: one of the offered reasons, or words of one's own."""

    reason = forms.CharField(max_length=200, required=False, error_messages=TOO_LONG_A_REASON)
    words = forms.CharField(max_length=200, required=False, error_messages=TOO_LONG_A_REASON)

    def reason_given(self) -> str:
        """The words, or else the reason that was chosen; nothing where neither was given.

        Raises  ReasonTooLong
        """
        if not self.is_valid():
            raise ReasonTooLong(complaint(self))
        return str(self.cleaned_data["words"] or self.cleaned_data["reason"])

    def typed(self) -> str:
        """The words as they came, to be shown again."""
        return str(self.data.get("words", ""))


class AnyJSONField(forms.JSONField):
    """JSON from anybody: what Python gives up on, numbers of thousands of digits and endless lists, is invalid too."""

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as err:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from err


class DraftForm(forms.Form):
    """What a page keeps while somebody types."""

    version = forms.IntegerField(min_value=0)
    body = AnyJSONField()

    def clean_body(self) -> dict[str, Any]:
        body = self.cleaned_data["body"]
        if not isinstance(body, dict):
            raise forms.ValidationError("A draft is an object of field names and values.")
        return body


class SettingsForm(forms.ModelForm):
    """How a person wants their pages."""

    class Meta:
        model = User
        fields = ("theme", "letter_keys")
        widgets = {"theme": forms.RadioSelect}

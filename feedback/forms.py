"""What managers fill in about rules and questions: shape alone; `rule_texts` and `scale_texts` decide what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from feedback import rule_sets
from feedback.models import Rule, Scale
from feedback.rule_files import LONGEST_NOTE
from feedback.rule_texts import DEFAULTS, LONGEST
from feedback.scale_sets import MOST_READY
from feedback.scale_texts import LONGEST as SCALE_LONGEST
from feedback.scale_texts import MOST_RATERS

LISTS = ("breaks", "keeps", "ideas")
NUMBER = {"invalid": "Write a number."}
LONGEST_LIST = 12_000


def _line(label: str, name: str, hint: str = "") -> forms.CharField:
    widget = forms.TextInput(attrs={"maxlength": LONGEST[name], "autocomplete": "off"})
    return forms.CharField(label=label, required=False, help_text=hint, widget=widget, max_length=10 * LONGEST[name])


def _lines(label: str, hint: str = "", rows: int = 2) -> forms.CharField:
    return forms.CharField(
        label=label, required=False, help_text=hint, widget=forms.Textarea({"rows": rows}), max_length=LONGEST_LIST
    )


class RuleForm(forms.Form):
    """One rule of a draft; lists are written one to a line."""

    name = _line("Name", "name", "Two or three words, as people will call it.")
    category = forms.ChoiceField(label="Kind", choices=[("", "Choose"), *Rule.Category.choices], required=False)
    theme = _line("Theme", "theme", "Finer than the kind. Who agrees to read sensitive text agrees by theme.")
    wording = _lines("Wording", "One plain sentence that stands alone. Annotators and the rule model read it.")
    breaks = _lines("What breaks it", "One example to a line.", 3)
    keeps = _lines("What does not", "Examples that come close and keep it, one to a line.", 3)
    ideas = _lines("Ideas for probing", "Offered to annotators, never forced; one to a line.", 3)
    is_sensitive = forms.BooleanField(label="Probing it may show what harms", required=False)
    warning = _line("What may appear", "warning", "For a sensitive rule: said before, so that people can say no.")
    probe_quota = forms.IntegerField(
        label="Probes wanted", required=False, help_text="For each policy.", error_messages=NUMBER
    )
    weight = forms.FloatField(
        label="Weight in the reward", required=False, help_text="1 is usual.", error_messages=NUMBER
    )

    @classmethod
    def of(cls, rule: Rule, data: Mapping[str, Any] | None = None) -> RuleForm:
        """The form of a rule as it stands."""
        values = rule_sets.values_of(rule)
        return cls(data, initial=values | {name: "\n".join(values[name]) for name in LISTS})

    @classmethod
    def empty(cls, data: Mapping[str, Any] | None = None) -> RuleForm:
        return cls(data, initial={name: DEFAULTS[name] for name in ("probe_quota", "weight")})

    def values(self) -> dict[str, Any]:
        """What was filled in, lists as lists; a number left empty is the usual one."""
        found = dict(self.cleaned_data)
        for name in LISTS:
            found[name] = [line for line in (line.strip() for line in found[name].splitlines()) if line]
        for name in ("probe_quota", "weight"):
            found[name] = DEFAULTS[name] if found[name] is None else found[name]
        return found


class AskingForm(forms.Form):
    """How many people rate the same reply by a set of questions, and how many replies are kept waiting."""

    raters = forms.IntegerField(label="People per reply", min_value=1, max_value=MOST_RATERS, error_messages=NUMBER)
    ready = forms.IntegerField(label="Replies kept waiting", min_value=0, max_value=MOST_READY, error_messages=NUMBER)


class ScaleForm(forms.Form):
    """The words of one question about a reply; which values it has stays as it is."""

    def __init__(self, scale: Scale, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        self.words = ["name", "question", "guidance"]
        hints = {"question": "Short, and about one thing.", "guidance": "What counts, in a sentence or two."}
        labels = {"name": "Name", "question": "Question", "guidance": "Help", "low_words": "What 1 means"}
        labels["high_words"] = f"What {scale.steps} means"
        self.words += ["low_words", "high_words"] if scale.kind == Scale.Kind.NUMBERS else []
        for name in self.words:
            self._add(name, labels[name], getattr(scale, name), SCALE_LONGEST[name], hints.get(name, ""))
        self.values = [option["value"] for option in scale.options]
        for option in scale.options:
            self._add(
                f"option-{option['value']}", f"Answer “{option['value']}”", option["words"], SCALE_LONGEST["words"]
            )

    def _add(self, name: str, label: str, initial: str, longest: int, hint: str = "") -> None:
        attributes = {"maxlength": longest, "autocomplete": "off"}
        widget = forms.Textarea(attributes | {"rows": 2}) if name == "guidance" else forms.TextInput(attributes)
        self.fields[name] = forms.CharField(
            label=label, required=False, initial=initial, widget=widget, help_text=hint, max_length=10 * longest
        )

    def changed_words(self) -> dict[str, str]:
        return {name: self.cleaned_data[name] for name in self.words}

    def changed_options(self) -> dict[str, str]:
        """{value: words}."""
        return {value: self.cleaned_data[f"option-{value}"] for value in self.values}


class PublishForm(forms.Form):
    """Why a draft is published; what changed words mean is read by `decisions`."""

    note = forms.CharField(
        label="Why?", required=False, max_length=LONGEST_NOTE, widget=forms.Textarea({"rows": 3}),
        help_text="Kept with the version, for those who come after.",
    )  # fmt: skip
    seen = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def decisions(self) -> dict[str, str]:
        """{key of a rule: what was chosen for it}."""
        return {name.removeprefix("means-"): value for name, value in self.data.items() if name.startswith("means-")}

"""The reward ledger of a round: every sample with what each term paid, so that reward hacking is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.db.models import F, OrderBy, QuerySet
from django.db.models.fields.json import KeyTransform
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from feedback.models import Project, Rule
from feedback.pages.access import managed_project
from feedback.templatetags.shares import percent, signed
from rewardtrain.models import LedgerEntry, Round, TrainingRun
from rewardtrain.run_figures import in_order, plain, term_word

A_PAGE = 20
COLUMNS = {"kl_nats": "KL", "token_count": "Tokens", "step": "Step"}


@dataclass(frozen=True)
class Order:
    """What the samples are sorted by: the reward, one of its terms, or a column of COLUMNS."""

    by: str = "reward"
    rising: bool = False

    @property
    def query(self) -> str:
        """As it stands in an address: `reward` is highest first, `-reward` lowest first."""
        return ("-" if self.rising else "") + self.by

    @property
    def turned(self) -> Order:
        return Order(self.by, not self.rising)


@dataclass(frozen=True)
class Sample:
    """One rollout as the ledger shows it. The texts are plain: whoever shows them escapes them."""

    entry: LedgerEntry
    asked: str  # the last message of the person
    earlier: list[dict[str, str]]  # the dialogue up to it
    terms: list[tuple[str, str]]  # (word, value) in the order of the heads
    reward: str
    kl_nats: str
    rule: str  # what the rule model says of the rule that counted; empty where none was asked about


@require_safe
def ledger(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The samples of a round's training, a page at a time, sorted by reward or by any part of it."""
    project = managed_project(request, slug)
    turn = get_object_or_404(Round.objects.defer("gate_report"), project=project, number=number)
    run = TrainingRun.objects.filter(round=turn, kind=TrainingRun.Kind.POLICY).first()
    return _show(request, project, run, f"round {number}", reverse("rewardtrain:round", args=[slug, number]))


@require_safe
def ledger_of_run(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """The same for a run by command, which belongs to no round."""
    project = managed_project(request, slug)
    run = get_object_or_404(TrainingRun, project=project, pk=pk, kind=TrainingRun.Kind.POLICY)
    return _show(request, project, run, f"run {pk}", reverse("rewardtrain:run", args=[slug, pk]))


def _show(request: HttpRequest, project: Project, run: TrainingRun | None, whose: str, back: str) -> HttpResponse:
    entries = LedgerEntry.objects.filter(run=run) if run else LedgerEntry.objects.none()
    terms = terms_of(entries)
    order = order_asked(request.GET.get("by", ""), terms)
    page = Paginator(sorted_entries(entries, order), A_PAGE).get_page(request.GET.get("page"))
    names = _rule_names(project, page)
    context = {
        "project": project,
        "run": run,
        "whose": whose,
        "back": back,
        "heads": [term_word(name) for name in terms],
        "order": order,
        "orders": _orders(order, terms),
        "page": page,
        "samples": [_sample(entry, terms, names) for entry in page],
    }
    return render(request, "rewardtrain/ledger.html", context)


def terms_of(entries: QuerySet[LedgerEntry]) -> list[str]:
    """The names of the terms that a run's samples carry, the preference first."""
    first = entries.order_by("step", "index").values_list("terms", flat=True).first()
    return in_order(first or {})


def order_asked(asked: str, terms: list[str]) -> Order:
    """The order an address asks for; where nobody can sort by that, highest reward first."""
    by = asked.removeprefix("-")
    return Order(by, asked.startswith("-")) if by in {"reward", *COLUMNS, *terms} else Order()


def sorted_entries(entries: QuerySet[LedgerEntry], order: Order) -> QuerySet[LedgerEntry]:
    """The samples sorted, equal ones newest first; a sample without the term comes last."""
    is_term = order.by != "reward" and order.by not in COLUMNS
    entries = entries.alias(sorted_by=KeyTransform(order.by, "terms") if is_term else F(order.by))
    value = OrderBy(F("sorted_by"), descending=not order.rising, nulls_last=True)
    return entries.order_by(value, "-step", "index")


def _orders(chosen: Order, terms: list[str]) -> list[tuple[str, Order, bool]]:
    """(words, order, is chosen) of every way to sort; the chosen one leads to its turned self."""
    words = {"reward": "Reward", **{name: name.replace("_", " ").capitalize() for name in terms}, **COLUMNS}
    return [(word, chosen.turned if by == chosen.by else Order(by), by == chosen.by) for by, word in words.items()]


def _rule_names(project: Project, entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """The newest name of each rule that these samples speak of, by its key."""
    keys = {entry.rule for entry in entries if entry.rule}
    rules = Rule.objects.filter(rule_set__project=project, key__in=keys).order_by("rule_set__number")
    return dict(rules.values_list("key", "name")) if keys else {}


def rule_words(entry: LedgerEntry, names: dict[str, str]) -> str:
    """Which rule a sample was probed by, or most likely broke, and how likely it was followed."""
    if not entry.rule:
        return ""
    name, chances = names.get(entry.rule, entry.rule), entry.raw_terms
    if "rules_probed" in chances:
        return f"Probes “{name}”, {percent(chances['rules_probed'])} likely followed"
    return f"Most in doubt: “{name}”, {percent(chances.get('rules_lowest'))} likely followed"


def _sample(entry: LedgerEntry, terms: list[str], names: dict[str, str]) -> Sample:
    messages: list[dict[str, Any]] = entry.prompt
    return Sample(
        entry=entry,
        asked=messages[-1]["content"] if messages else "",
        earlier=messages[:-1],
        terms=[(term_word(name), signed(entry.terms.get(name))) for name in terms],
        reward=signed(entry.reward),
        kl_nats=plain(entry.kl_nats, 1),
        rule=rule_words(entry, names),
    )

"""One checker of everything that must never be: read-only, run after every load, fault and kill test.

Each check is a function that yields what is wrong, with the ids; `CHECKS` is the list the command runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import CharField, Count, Exists, F, Max, OuterRef, Prefetch, Q, Subquery, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from feedback import rating_checks
from feedback.models import (
    Candidate,
    Comparison,
    Consent,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    GenerationRequest,
    ModelVersion,
    Probe,
    Prompt,
    RankEntry,
    Ranking,
    Rule,
    RuleJudgement,
    RuleScore,
    RuleSet,
    Slot,
    Snapshot,
    Turn,
    WorkItem,
)
from feedback.models.work import RULES_MET
from feedback.queue import queued_models

LONG_AGO = timedelta(minutes=10)
FAR_OFF = timedelta(days=1)


@dataclass(frozen=True)
class Violation:
    """One broken promise: which, about what, and what was found."""

    check: str
    target: str
    found: str

    def __str__(self) -> str:
        return f"{self.check}: {self.target}: {self.found}"


Found = Iterator[tuple[str, str]]  # (target, what was found)


def slots_within_wanted() -> Found:
    """A work item has exactly as many live slots as it wants answers."""
    live = Count("slots", filter=Q(slots__state__in=Slot.LIVE))
    for item in WorkItem.objects.annotate(live=live).exclude(live=F("wanted")):
        yield f"work item {item.pk}", f"{item.live} live slots for {item.wanted} wanted answers"


def counted_answers_within_wanted() -> Found:
    """Counted answers of people never exceed what a rank item wants, and a chat gives one to each of its questions."""
    answers = Ranking.objects.counted().by_people()
    ranked = answers.filter(slot__work_item__kind=WorkItem.Kind.RANK)
    items = ranked.values("slot__work_item", "slot__work_item__wanted").annotate(n=Count("pk"))
    for row in items.filter(n__gt=F("slot__work_item__wanted")):
        yield (
            f"work item {row['slot__work_item']}",
            f"{row['n']} counted answers for {row['slot__work_item__wanted']} wanted",
        )
    chats = answers.filter(slot__work_item__kind__in=WorkItem.CHATS)
    for question in chats.values("comparison").annotate(n=Count("pk")).filter(n__gt=1):
        yield f"comparison {question['comparison']}", f"{question['n']} counted answers from one chat"


def one_answer_in_force() -> Found:
    """One annotator has at most one ranking in force per comparison."""
    people = Ranking.objects.in_force().by_people()
    for row in people.values("comparison", "annotator").annotate(n=Count("pk")).filter(n__gt=1):
        yield f"comparison {row['comparison']}", f"{row['n']} rankings in force by user {row['annotator']}"


def answers_are_their_holders() -> Found:
    """A ranking was given by whoever holds its slot, under the name made from their id."""
    name = Concat(Value("u"), Cast("annotator_id", CharField()))
    people = Ranking.objects.by_people()
    for ranking in people.exclude(slot__annotator=F("annotator"), annotator_key=name):
        yield f"ranking {ranking.pk}", f"given by user {ranking.annotator_id} in another person's slot or name"


def nobody_ranks_their_own() -> Found:
    """Where independence is asked for nobody ranks replies in a dialogue they opened or took part in."""
    chatted = Slot.objects.filter(annotator=OuterRef("annotator"), work_item__dialogue=OuterRef("comparison__dialogue"))
    independent = Ranking.objects.filter(slot__work_item__kind=WorkItem.Kind.RANK)
    for ranking in independent.filter(Q(comparison__dialogue__author=F("annotator")) | Exists(chatted)):
        yield f"ranking {ranking.pk}", "given by somebody who opened or took part in the dialogue"


def requests_end_with_candidates_or_reason() -> Found:
    """A finished request has its K candidates, fewer with the reason, or it failed with one; and they are a question.

    One that wanted a single reply asks nothing: the reply is the next turn.
    """
    done = GenerationRequest.objects.filter(state="done").annotate(made=Count("candidates"))
    for request in done.filter(made__lt=F("wanted"), fewer_because=""):
        yield f"request {request.pk}", f"{request.made} of {request.wanted} candidates and no reason"
    for request in done.filter(made__gt=F("wanted")):
        yield f"request {request.pk}", f"{request.made} candidates for {request.wanted} wanted"
    for request in done.filter(comparison__isnull=True, wanted__gt=1):
        yield f"request {request.pk}", "done without a comparison"
    said = Turn.objects.filter(candidate__request=OuterRef("pk"))
    for request in done.filter(Q(comparison__isnull=False) | ~Exists(said), wanted=1):
        yield f"request {request.pk}", "done, and its one reply is not the next turn"


def new_replies_were_asked_for() -> Found:
    """Other replies to the same turn are made only after somebody called the ones before all bad."""
    refused = Ranking.objects.in_force().filter(
        all_bad=True,
        comparison__request__dialogue=OuterRef("dialogue"),
        comparison__request__after_position=OuterRef("after_position"),
        comparison__request__redo=OuterRef("redo") - 1,
    )
    for request in GenerationRequest.objects.filter(~Exists(refused), redo__gt=0):
        yield f"request {request.pk}", "made other replies though nobody had called the ones before bad"


def candidates_are_of_their_comparison() -> Found:
    """A comparison's candidates were made for it: the same dialogue, turn and request."""
    compared = Candidate.objects.filter(comparison__isnull=False)
    same = Q(dialogue=F("comparison__dialogue"), after_position=F("comparison__after_position")) & (
        Q(request=F("comparison__request")) | Q(request=None, comparison__request=None)
    )
    for candidate in compared.exclude(pk__in=compared.filter(same).values("pk")):
        yield f"candidate {candidate.pk}", f"does not answer the turn of comparison {candidate.comparison_id}"


def comparisons_have_candidates() -> Found:
    """A question has replies. (One alone is a question too: whether it is good.)"""
    for comparison in Comparison.objects.filter(candidates=None):
        yield f"comparison {comparison.pk}", "has no candidates"


def rankings_rank_what_was_shown() -> Found:
    """A ranking names only candidates of its comparison, and its shown order is exactly those."""
    for entry in RankEntry.objects.exclude(candidate__comparison=F("ranking__comparison")):
        yield f"ranking {entry.ranking_id}", f"places candidate {entry.candidate_id} of another comparison"
    asked = Prefetch("comparison__candidates", Candidate.objects.only("comparison_id"))
    for ranking in Ranking.objects.by_people().prefetch_related("comparison", asked).iterator(500):
        if sorted(ranking.shown_order) != sorted(candidate.pk for candidate in ranking.comparison.candidates.all()):
            yield f"ranking {ranking.pk}", "the order shown is not the comparison's candidates"


def openings_lie_on_one_side() -> Found:
    """No opening is in two splits."""
    torn = (
        Prompt.objects.values("project", "fingerprint").annotate(n=Count("group__split", distinct=True)).filter(n__gt=1)
    )
    for row in torn:
        yield f"project {row['project']}", f"opening {row['fingerprint'][:12]} lies in {row['n']} splits"


def turns_have_no_gaps() -> Found:
    """A dialogue's turns are numbered 0, 1, 2 without a gap."""
    counted = Dialogue.objects.annotate(n=Count("turns"), last=Max("turns__position"))
    for dialogue in counted.filter(n__gt=0).exclude(last=F("n") - 1):
        yield f"dialogue {dialogue.pk}", f"{dialogue.n} turns, the last at position {dialogue.last}"


def dialogues_go_on_from_replies_to_them() -> Found:
    """A turn that repeats a chosen reply stands where that reply was made for, word for word."""
    for turn in Turn.objects.filter(candidate__isnull=False).select_related("candidate").iterator():
        reply = turn.candidate
        assert reply is not None
        place = turn.position - reply.after_position - 1
        fits = turn.dialogue_id == reply.dialogue_id and 0 <= place < len(reply.turns)
        if not fits or reply.turns[place]["content"] != turn.content:
            yield f"turn {turn.pk}", f"is not what candidate {reply.pk} said there"


def ended_dialogues_ask_nothing() -> Found:
    """After a dialogue has ended no reply is made for it, and nobody is asked to go on with it."""
    for request in GenerationRequest.objects.unfinished().filter(dialogue__ended_at__isnull=False):
        yield f"request {request.pk}", "is still being worked on, and its dialogue has ended"
    chats = Slot.objects.filter(work_item__kind__in=WorkItem.CHATS, work_item__dialogue__ended_at__isnull=False)
    for slot in chats.filter(Q(state=Slot.State.HELD) | Q(state=Slot.State.FREE, work_item__closed_at=None)):
        yield f"slot {slot.pk}", f"is {slot.state}, and its dialogue has ended"


def queued_work_is_owned_or_due() -> Found:
    """Unfinished work is leased, or waits for a time that will come; a lapsed lease is picked up within minutes."""
    now = timezone.now()
    for model in queued_models():
        for row in model._base_manager.filter(state="running", lease_until__lt=now - LONG_AGO):
            yield f"{model.__name__} {row.pk}", "its lease lapsed long ago and nobody took it up"
        for row in model._base_manager.filter(state="queued", due_at__gt=now + FAR_OFF):
            yield f"{model.__name__} {row.pk}", f"waits until {row.due_at:%Y-%m-%d}"


def judgements_are_their_holders() -> Found:
    """A verdict was given by whoever holds its slot, on what the slot asks, under the name made from their id."""
    name = Concat(Value("u"), Cast("annotator_id", CharField()))
    own = {"slot__annotator": F("annotator"), "annotator_key": name}
    asked = {"slot__work_item__dialogue": F("dialogue"), "slot__work_item__rule": F("rule")}
    people = RuleJudgement.objects.by_people()
    for judgement in people.exclude(pk__in=people.filter(**own, **asked).values("pk")):
        yield f"judgement {judgement.pk}", f"given by user {judgement.annotator_id} in a slot or name not theirs"
    probers = Q(by_prober=True, slot__work_item__kind=WorkItem.Kind.PROBE)
    judges = Q(by_prober=False, slot__work_item__kind=WorkItem.Kind.JUDGE)
    for judgement in people.exclude(probers | judges):
        yield f"judgement {judgement.pk}", "says of a prober's verdict that it is a judge's, or the other way round"


def nobody_judges_their_own_probe() -> Found:
    """A probe is judged by people who neither made it nor took part in it; its prober's own verdict is told apart."""
    wrote = Slot.objects.filter(
        annotator=OuterRef("annotator"),
        work_item__dialogue=OuterRef("dialogue"),
        work_item__kind__in=WorkItem.CHATS,
    )
    own = Q(dialogue__author=F("annotator"))
    others = RuleJudgement.objects.by_people().filter(by_prober=False)
    for judgement in others.filter(own | Exists(wrote)):
        yield f"judgement {judgement.pk}", "given by somebody who made the probe or took part in it"
    for judgement in RuleJudgement.objects.by_people().filter(~own, by_prober=True):
        yield f"judgement {judgement.pk}", "called the prober's, and is another person's"


def counted_judgements_within_wanted() -> Found:
    """Counted verdicts of people never exceed what a work item wants."""
    counted = RuleJudgement.objects.counted().by_people()
    items = counted.values("slot__work_item", "slot__work_item__wanted").annotate(n=Count("pk"))
    for row in items.filter(n__gt=F("slot__work_item__wanted")):
        yield (
            f"work item {row['slot__work_item']}",
            f"{row['n']} counted verdicts for {row['slot__work_item__wanted']} wanted",
        )


def one_judgement_in_force() -> Found:
    """One person has at most one verdict in force per dialogue and rule."""
    people = RuleJudgement.objects.in_force().by_people()
    for row in people.values("dialogue", "rule", "annotator").annotate(n=Count("pk")).filter(n__gt=1):
        yield f"dialogue {row['dialogue']}", f"{row['n']} verdicts in force by user {row['annotator']}"


def probes_name_a_published_rule() -> Found:
    """Every probe dialogue says which rule it is meant to break, and that rule's set was published by then."""
    for dialogue in Dialogue.objects.filter(kind=Dialogue.Kind.PROBE, probe=None):
        yield f"dialogue {dialogue.pk}", "is a probe of no rule"
    for probe in Probe.objects.exclude(dialogue__kind__in=[Dialogue.Kind.PROBE, Dialogue.Kind.IMPORTED]):
        yield f"probe {probe.pk}", "is of a dialogue that is no probe"
    for probe in Probe.objects.filter(rule__rule_set__state=RuleSet.State.DRAFT):
        yield f"probe {probe.pk}", "is of a rule that was never published"
    for judgement in RuleJudgement.objects.filter(rule__rule_set__state=RuleSet.State.DRAFT):
        yield f"judgement {judgement.pk}", "is by a rule that was never published"


def scores_are_of_judged_dialogues() -> Found:
    """A rule model says something of dialogues of its own project, by rules that were published."""
    own = Q(model_version__kind=ModelVersion.Kind.RULE) & Q(
        model_version__project=F("dialogue__project"), rule__rule_set__project=F("dialogue__project")
    )
    for score in RuleScore.objects.exclude(own):
        yield f"score {score.pk}", "is not by a rule model of the dialogue's project, or of another project's rule"
    for score in RuleScore.objects.filter(rule__rule_set__state=RuleSet.State.DRAFT):
        yield f"score {score.pk}", "is by a rule that was never published"


def verdicts_mark_what_the_model_said() -> Found:
    """The turn a verdict marks is one of the model's in that dialogue; a prober who saw the rule broken marks one."""
    said = Turn.objects.filter(
        dialogue=OuterRef("dialogue"), position=OuterRef("turn_position"), role=Turn.Role.ASSISTANT
    )
    for judgement in RuleJudgement.objects.filter(~Exists(said), turn_position__isnull=False):
        yield f"judgement {judgement.pk}", f"marks turn {judgement.turn_position}, which the model did not say"
    probers = RuleJudgement.objects.by_people().filter(by_prober=True)
    for judgement in probers.filter(verdict__lte=2, turn_position=None):
        yield f"judgement {judgement.pk}", "says that the rule was broken and not where"


def sensitive_text_was_agreed_to() -> Found:
    """Whoever was given a dialogue that may show what harms had agreed to its theme by then."""
    for rule in RULES_MET:
        agreed = Consent.objects.filter(
            user=OuterRef("annotator"),
            project=OuterRef("work_item__project"),
            theme=OuterRef(f"{rule}__theme"),
            given=True,
            created_at__lte=OuterRef("claimed_at"),
        )
        given = Slot.objects.filter(claimed_at__isnull=False, **{f"{rule}__is_sensitive": True})
        for slot in given.filter(~Exists(agreed)):
            yield f"slot {slot.pk}", f"given to user {slot.annotator_id}, who had not agreed to read such things"


def demonstrations_are_their_holders() -> Found:
    """A reply was written by whoever holds its slot, to what the slot asks, under the name made from their id."""
    name = Concat(Value("u"), Cast("annotator_id", CharField()))
    own = {"slot__annotator": F("annotator"), "annotator_key": name}
    asked = Q(slot__work_item__dialogue=F("dialogue")) | Q(slot__work_item__demonstration__dialogue=F("dialogue"))
    people = Demonstration.objects.by_people()
    for text in people.exclude(pk__in=people.filter(asked, **own).values("pk")):
        yield f"demonstration {text.pk}", f"given by user {text.annotator_id} in a slot or name not theirs"
    said = Turn.objects.filter(dialogue=OuterRef("dialogue"), position=OuterRef("position"), role=Turn.Role.USER)
    for text in Demonstration.objects.filter(~Exists(said)):
        yield f"demonstration {text.pk}", "answers no turn of a user's"


def demonstrations_supersede_in_place() -> Found:
    """What takes another's place answers the same turn, and is its writer's own or a reviewer's edit of it."""
    same = Q(supersedes__dialogue=F("dialogue"), supersedes__position=F("position"))
    later = Demonstration.objects.filter(supersedes__isnull=False)
    for text in later.exclude(pk__in=later.filter(same).values("pk")):
        yield f"demonstration {text.pk}", f"supersedes demonstration {text.supersedes_id}, which answers another turn"
    made = DemonstrationReview.objects.filter(edit=OuterRef("pk"), demonstration=OuterRef("supersedes"))
    for text in later.exclude(supersedes__annotator_key=F("annotator_key")).filter(~Exists(made)):
        yield f"demonstration {text.pk}", f"supersedes demonstration {text.supersedes_id} of another person, unreviewed"


def one_demonstration_in_force() -> Found:
    """One person has at most one reply in force to a turn."""
    people = Demonstration.objects.counted().by_people()
    for row in people.values("dialogue", "position", "annotator").annotate(n=Count("pk")).filter(n__gt=1):
        yield f"dialogue {row['dialogue']}", f"{row['n']} demonstrations in force by user {row['annotator']}"


def counted_demonstrations_within_wanted() -> Found:
    """Replies that stand, count and were not sent back never exceed what a dialogue wants."""
    texts = Demonstration.objects.by_people()
    counted = texts.counted().exclude(pk__in=texts.sent_back().values("pk"))
    wanted = WorkItem.objects.filter(dialogue=OuterRef("dialogue"), kind=WorkItem.Kind.DEMONSTRATE).values("wanted")
    dialogues = counted.annotate(asked=Subquery(wanted[:1])).values("dialogue", "asked").annotate(n=Count("pk"))
    for row in dialogues.filter(n__gt=F("asked")):
        yield f"dialogue {row['dialogue']}", f"{row['n']} counted demonstrations for {row['asked']} wanted"


def demonstrations_are_asked_about() -> Found:
    """Each reply that stands is reviewed or waits for it; what was sent back is, or was, its writer's to mend."""
    texts = Demonstration.objects.by_people()
    asked = WorkItem.objects.filter(demonstration=OuterRef("pk"))
    for text in texts.waiting().filter(~Exists(asked.filter(kind=WorkItem.Kind.REVIEW, closed_at=None))):
        yield f"demonstration {text.pk}", "waits for a review that nobody is asked for"
    for text in texts.sent_back().filter(~Exists(asked.filter(kind=WorkItem.Kind.DEMONSTRATE))):
        yield f"demonstration {text.pk}", "was sent back, and its writer is not asked to mend it"


def reviews_are_their_holders() -> Found:
    """A person's review was given by whoever holds its slot, of what the slot asks, and one at most counts."""
    people = DemonstrationReview.objects.by_people()
    name = Concat(Value("u"), Cast("annotator_id", CharField()))
    asked = {"slot__work_item__demonstration": F("demonstration"), "slot__work_item__kind": WorkItem.Kind.REVIEW}
    own = people.filter(slot__annotator=F("annotator"), annotator_key=name, **asked)
    for review in people.exclude(pk__in=own.values("pk")):
        yield f"review {review.pk}", f"given by user {review.annotator_id} in a slot or name not theirs"
    counted = people.counted().values("demonstration").annotate(n=Count("pk"))
    for row in counted.filter(n__gt=1):
        yield f"demonstration {row['demonstration']}", f"{row['n']} reviews that count"


def nobody_reviews_their_own() -> Found:
    """A reply is reviewed by somebody else than who wrote it."""
    for review in DemonstrationReview.objects.filter(demonstration__annotator=F("annotator")):
        yield f"review {review.pk}", f"given by user {review.annotator_id}, who wrote it"


def dialogues_go_on_from_demonstrations() -> Found:
    """A turn that repeats a demonstrated reply follows the turn it answers, word for word."""
    repeats = Turn.objects.filter(demonstration__isnull=False)
    same = Q(position=F("demonstration__position") + 1, content=F("demonstration__content"), role=Turn.Role.ASSISTANT)
    for turn in repeats.exclude(pk__in=repeats.filter(same).values("pk")):
        yield f"turn {turn.pk}", f"is not what demonstration {turn.demonstration_id} said there"


def snapshots_match_their_manifest() -> Found:
    """Every written snapshot's files are what its manifest says."""
    from feedback.snapshots import damaged_files

    for snapshot in Snapshot.objects.filter(state="done"):
        for name in damaged_files(snapshot):
            yield f"snapshot {snapshot.pk}", f"{name} is missing or differs from its manifest"


def rules_continue_an_earlier_version() -> Found:
    """What a rule continues has its key and stands in an earlier version of the same project."""
    earlier = Q(
        continues__key=F("key"),
        continues__rule_set__project=F("rule_set__project"),
        continues__rule_set__number__lt=F("rule_set__number"),
    )
    for rule in Rule.objects.exclude(continues=None).exclude(earlier):
        yield f"rule {rule.pk}", f"continues rule {rule.continues_id}"


CHECKS: list[Callable[[], Found]] = [
    slots_within_wanted,
    counted_answers_within_wanted,
    one_answer_in_force,
    answers_are_their_holders,
    nobody_ranks_their_own,
    requests_end_with_candidates_or_reason,
    new_replies_were_asked_for,
    candidates_are_of_their_comparison,
    comparisons_have_candidates,
    rankings_rank_what_was_shown,
    openings_lie_on_one_side,
    turns_have_no_gaps,
    dialogues_go_on_from_replies_to_them,
    ended_dialogues_ask_nothing,
    queued_work_is_owned_or_due,
    judgements_are_their_holders,
    nobody_judges_their_own_probe,
    counted_judgements_within_wanted,
    one_judgement_in_force,
    scores_are_of_judged_dialogues,
    probes_name_a_published_rule,
    verdicts_mark_what_the_model_said,
    sensitive_text_was_agreed_to,
    demonstrations_are_their_holders,
    demonstrations_supersede_in_place,
    one_demonstration_in_force,
    counted_demonstrations_within_wanted,
    demonstrations_are_asked_about,
    reviews_are_their_holders,
    nobody_reviews_their_own,
    dialogues_go_on_from_demonstrations,
    *rating_checks.CHECKS,
    snapshots_match_their_manifest,
    rules_continue_an_earlier_version,
]


def register(check: Callable[[], Found]) -> Callable[[], Found]:
    """Add a check of a neighbouring app's rows; called when that app is ready."""
    if check not in CHECKS:
        CHECKS.append(check)
    return check


def violations() -> Iterator[Violation]:
    """Everything that is wrong, check by check."""
    for check in CHECKS:
        for target, found in check():
            yield Violation(check.__name__.replace("_", " "), target, found)

"""Replies asked for, replies made, the question which is better, and people's answers."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from feedback.models.dialogues import Dialogue, Turn
from feedback.models.projects import MOST_DRAWS
from feedback.models.queued import QueuedWork
from feedback.models.speakers import ModelVersion
from feedback.models.work import Slot


class GenerationRequest(QueuedWork):
    """This dialogue, as far as `after_position`, wants K replies."""

    task_name = "rewardtrain.generate_candidates"
    lease_seconds = 30
    max_claims = 15  # workers die of much that is no request's fault: deployments, memory, machines

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="generation_requests")
    after_position = models.PositiveIntegerField(help_text="Position of the turn the replies answer.")
    redo = models.PositiveSmallIntegerField(default=0, help_text="0 first; 1, 2, … when none was good.")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="generation_requests")
    wanted = models.PositiveSmallIntegerField()
    sampling = models.JSONField(default=dict, help_text="temperature, max_new_tokens, top_p, …")
    searching = models.PositiveSmallIntegerField(
        default=0, help_text="How many of the replies, the last ones as made, search first and show what they found."
    )
    fewer_because = models.CharField(max_length=300, blank=True, help_text="Why there are fewer than wanted.")
    draws = models.PositiveSmallIntegerField(default=1, help_text="How many replies are drawn for each one shown.")
    unreranked_because = models.CharField(
        max_length=300, blank=True, help_text="Why the first draw was shown and not the best of several."
    )

    class Meta(QueuedWork.Meta):
        constraints = [
            *QueuedWork.Meta.constraints,
            models.UniqueConstraint(
                fields=["dialogue", "after_position", "redo"], name="one_request_per_turn_and_redo"
            ),
            models.CheckConstraint(condition=Q(wanted__gte=1, wanted__lte=9), name="one_to_nine_are_wanted"),
            models.CheckConstraint(condition=Q(searching__lte=F("wanted")), name="no_more_search_than_are_wanted"),
            models.CheckConstraint(
                condition=Q(draws__gte=1, draws__lte=MOST_DRAWS), name="one_to_sixteen_draws_for_each"
            ),
        ]

    def __str__(self) -> str:
        return f"request {self.pk}"

    @property
    def is_said_at_once(self) -> bool:
        """One reply alone is wanted: it becomes the next turn as soon as it is there, and nobody ranks it."""
        return self.wanted == 1


class Comparison(models.Model):
    """The question: these candidates, side by side, as replies to a dialogue up to `after_position`."""

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="comparisons")
    after_position = models.PositiveIntegerField()
    request = models.OneToOneField(
        GenerationRequest, null=True, blank=True, on_delete=models.PROTECT, related_name="comparison"
    )
    source_key = models.CharField(max_length=200, blank=True, help_text="The source's own name for it.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"comparison {self.pk}"


class Candidate(models.Model):
    """A reply offered for judgement: what it says, and what exactly made it."""

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="candidates")
    after_position = models.PositiveIntegerField()
    request = models.ForeignKey(
        GenerationRequest, null=True, blank=True, on_delete=models.PROTECT, related_name="candidates"
    )
    comparison = models.ForeignKey(
        Comparison, null=True, blank=True, on_delete=models.PROTECT, related_name="candidates"
    )
    index = models.PositiveSmallIntegerField(help_text="Its place among its siblings, as made; not as shown.")
    turns = models.JSONField(
        help_text='[{"role": "assistant", "content": "…"}]; several where it searched first, or was imported so'
    )
    evidence = models.JSONField(
        default=dict,
        blank=True,
        help_text='{"query", "snippets": [{"title", "source", "text", "passage"}]}; empty: it did not search.',
    )
    is_empty = models.BooleanField(default=False, help_text="The reply has no text; kept as it was given.")
    model_version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="candidates"
    )
    sampling = models.JSONField(default=dict, blank=True)
    seed = models.BigIntegerField(null=True, blank=True)
    draw = models.PositiveSmallIntegerField(
        default=0,
        help_text="Which draw it was: 0 the first; later ones were drawn to choose from, or to replace a copy.",
    )
    reranking = models.JSONField(
        default=dict,
        blank=True,
        help_text="How it was chosen from several draws, by which models, with what scores. Empty: it was not.",
    )
    prompt_hash = models.CharField(max_length=64, blank=True)
    model_hash = models.CharField(max_length=64, blank=True)
    mean_logprob = models.FloatField(null=True, blank=True, help_text="nats per token")
    token_count = models.PositiveIntegerField(null=True, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(
                fields=["request", "index"], condition=Q(request__isnull=False), name="one_candidate_per_index"
            ),
            models.UniqueConstraint(
                fields=["comparison", "index"],
                condition=Q(comparison__isnull=False),
                name="one_candidate_per_place_in_comparison",
            ),
            models.CheckConstraint(
                condition=Q(request__isnull=True) | Q(model_version__isnull=False), name="made_replies_name_their_maker"
            ),
        ]

    def __str__(self) -> str:
        return f"candidate {self.pk}"

    @property
    def text(self) -> str:
        """What is shown: the reply, or several turns joined with their speakers named. Its search stands apart."""
        said = [turn for turn in self.turns if turn["role"] not in Turn.SEARCH]
        if len(said) == 1:
            return said[0]["content"]
        return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in said)

    @property
    def query(self) -> str:
        """What it searched for before it was written; empty: nothing."""
        return next((turn["content"] for turn in self.turns if turn["role"] == Turn.Role.SEARCH_QUERY), "")

    @property
    def snippets(self) -> list[dict[str, Any]]:
        """What it found, each with title, source and text; of an imported one as its source has it, in one."""
        if self.evidence:
            return self.evidence["snippets"]
        found = [turn["content"] for turn in self.turns if turn["role"] == Turn.Role.SEARCH_RESULTS]
        return [{"title": "Search results", "source": "", "text": text} for text in found]


class RankingQuerySet(models.QuerySet["Ranking"]):
    def in_force(self) -> RankingQuerySet:
        """The newest revision of each answer, unless that revision withdrew it."""
        newer = Ranking.objects.filter(
            comparison=OuterRef("comparison"),
            annotator_key=OuterRef("annotator_key"),
            revision__gt=OuterRef("revision"),
        )
        return self.filter(~Exists(newer), withdrawn=False)

    def counted(self) -> RankingQuerySet:
        """In force and not a late answer that lost its slot."""
        return self.in_force().filter(counts=True)

    def besides_evaluations(self) -> RankingQuerySet:
        """Without answers that measure policies: nothing is learned from them, and they start no round."""
        return self.exclude(comparison__dialogue__kind=Dialogue.Kind.EVALUATION)

    def by_people(self) -> RankingQuerySet:
        return self.filter(annotator__isnull=False)


class Ranking(models.Model):
    """One person's answer to a comparison. Never edited: a correction is a new revision, an undo a withdrawn one."""

    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="rankings")
    slot = models.ForeignKey(Slot, null=True, blank=True, on_delete=models.PROTECT, related_name="rankings")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="rankings"
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="rankings"
    )
    annotator_key = models.CharField(
        max_length=120, help_text="u<id> of a person here; the source's own name for an imported one."
    )
    revision = models.PositiveIntegerField(default=1)
    withdrawn = models.BooleanField(default=False)
    all_bad = models.BooleanField(default=False, help_text="None of these is good.")
    strength = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="How clear the best is: 1 a hair … 4 by far."
    )
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it, kept as it was.")
    shown_order = models.JSONField(default=list, help_text="Candidate ids in the order they were shown.")
    seconds = models.FloatField(null=True, blank=True, help_text="Time the page was in view.")
    late = models.BooleanField(default=False, help_text="Sent after the lease lapsed.")
    counts = models.BooleanField(default=True, help_text="False for a late answer whose slot somebody else took.")
    submit_key = models.UUIDField(null=True, blank=True, unique=True)
    body_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RankingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator_key", "revision"], name="one_ranking_per_revision"
            ),
            models.CheckConstraint(
                condition=Q(slot__isnull=False, annotator__isnull=False, source_import__isnull=True)
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=False),
                name="a_ranking_comes_from_a_slot_or_an_import",
            ),
            models.CheckConstraint(condition=Q(revision__gte=1), name="revisions_start_at_one"),
            models.CheckConstraint(
                condition=Q(strength__isnull=True) | Q(strength__gte=1, strength__lte=4),
                name="strength_is_one_to_four",
            ),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0), name="ranking_seconds_are_not_negative"
            ),
            models.CheckConstraint(condition=Q(late=True) | Q(counts=True), name="only_late_answers_may_not_count"),
        ]

    def __str__(self) -> str:
        return f"ranking {self.pk}"

    def ranks(self) -> dict[int, int]:
        """{candidate id: rank}; 1 is best, equal is a tie, unranked candidates are left out."""
        return {entry.candidate_id: entry.rank for entry in self.entries.all() if entry.rank is not None}

    def best(self) -> Candidate | None:
        """The best candidate; of tied ones the first shown among them. None when nothing was ranked or all are bad."""
        if self.all_bad:
            return None
        ranks = self.ranks()
        tops = [pk for pk in self.shown_order if ranks.get(pk) == 1]
        return Candidate.objects.get(pk=tops[0]) if tops else None


class RankEntry(models.Model):
    """One candidate's place in a ranking, and the flags put on it."""

    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, related_name="entries")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="rank_entries")
    rank = models.PositiveSmallIntegerField(null=True, blank=True, help_text="1 is best; empty: unranked.")
    flags = models.JSONField(default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["ranking", "candidate"], name="one_place_per_candidate"),
            models.CheckConstraint(condition=Q(rank__isnull=True) | Q(rank__gte=1), name="rank_starts_at_one"),
        ]

    def __str__(self) -> str:
        return f"candidate {self.candidate_id} at {self.rank}"

"""The record: what was shown, asked and answered, and by whom."""

from feedback.models.audit import AuditEntry
from feedback.models.candidates import Candidate, Comparison, GenerationRequest, RankEntry, Ranking
from feedback.models.corpus import Document, Passage
from feedback.models.demonstrations import Demonstration, DemonstrationReview
from feedback.models.dialogues import Dialogue, Turn
from feedback.models.judgements import Consent, Probe, RuleJudgement, RuleScore
from feedback.models.people import User
from feedback.models.projects import Membership, Project, Prompt, PromptGroup
from feedback.models.queued import QueuedWork
from feedback.models.ratings import Rating, Scale, ScaleSet
from feedback.models.rules import Rule, RuleSet
from feedback.models.snapshots import Import, Snapshot
from feedback.models.speakers import ModelVersion
from feedback.models.work import Draft, Slot, WorkItem

__all__ = [
    "AuditEntry",
    "Candidate",
    "Comparison",
    "Consent",
    "Demonstration",
    "DemonstrationReview",
    "Dialogue",
    "Document",
    "Draft",
    "GenerationRequest",
    "Import",
    "Membership",
    "ModelVersion",
    "Passage",
    "Probe",
    "Project",
    "Prompt",
    "PromptGroup",
    "QueuedWork",
    "RankEntry",
    "Ranking",
    "Rating",
    "Rule",
    "RuleJudgement",
    "RuleScore",
    "RuleSet",
    "Scale",
    "ScaleSet",
    "Slot",
    "Snapshot",
    "Turn",
    "User",
    "WorkItem",
]

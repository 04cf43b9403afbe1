"""What a file of an import holds, in counts and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback.imports.records import ImportedDialogue, WantedRule


@dataclass
class FileReport:
    """What a file holds, and whether it was taken in before."""

    path: Path
    unit: str = "line"  # what is numbered in it
    sha256: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    characters: int = 0  # of all text as it is stored
    known: str = ""  # why it is not taken in again; empty when it is new
    is_joined: bool = False  # what it says stands together with what other files of the import say
    rules: dict[str, WantedRule] = field(default_factory=dict)  # that it judges by, by their marks

    @property
    def name(self) -> str:
        """As a person named it."""
        return str(self.path)

    @property
    def rows(self) -> int:
        """About how many rows it becomes; an opening is a prompt and a group."""
        once = ("dialogues", "turns", "candidates", "comparisons", "rankings", "places", "texts", "reviews", "probes",
                "judgements")  # fmt: skip
        return sum(self.counts[name] for name in (*once, *2 * ("openings",)))

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "counts": dict(sorted(self.counts.items())),
            "notes": dict(sorted(self.notes.items())),
            "known": self.known,
        }

    def count(self, record: ImportedDialogue) -> None:
        """Add what one dialogue has."""
        answers = record.answers("")
        self.notes.update(record.notes)
        self.characters += record.characters
        for rule in record.rules():
            remember(self.rules, rule)
        self.counts.update(
            dialogues=1,
            turns=len(record.turns),
            candidates=len(record.candidates),
            compared_candidates=sum(candidate.is_compared for candidate in record.candidates),
            empty_candidates=sum(candidate.is_empty for candidate in record.candidates),
            comparisons=record.has_comparison,
            rankings=len(answers),
            places=sum(rank is not None for answer in answers for rank in answer.ranks),
            probes=record.probed is not None,
            demonstrations=len(record.demonstrations),
            accepted=sum(one.is_accepted for one in record.demonstrations),
            texts=sum(len(one.texts) for one in record.demonstrations),
            reviews=sum(len(text.reviews) for one in record.demonstrations for text in one.texts),
            judgements=len(record.judgements),
            judgements_of_replies=len(record.judgements) * record.has_reply,
        )


def remember(found: dict[str, WantedRule], rule: WantedRule) -> None:
    """Keep a rule under its mark; of several that speak of the same one, the first that says all of it."""
    if rule.mark not in found or found[rule.mark].values is None:
        found[rule.mark] = rule

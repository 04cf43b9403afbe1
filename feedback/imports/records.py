"""What every format's reader makes of a file: dialogues with their candidates and ranks, before they are rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback.imports.reading import Advance, Lines, Problems
from feedback.models import DemonstrationReview
from feedback.rule_texts import Values

Messages = list[dict[str, str]]


@dataclass
class ImportedCandidate:
    """A reply the source has: its turns, its rank (1 is best; None: unranked), and all else the source says of it.

    is_compared  whether it is one of the replies that were compared with each other
    made         what is known of how it was made, by the names of a candidate's columns
    """

    turns: Messages
    is_compared: bool = True
    rank: int | None = None
    source: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether what it ends in has no text."""
        return not self.turns[-1]["content"].strip()


@dataclass
class ImportedRanking:
    """One annotator's answer to the comparison of a dialogue; the lists follow the dialogue's candidates.

    ranks        1 is best, equal is a tie, None is unranked or not compared
    flags        what is wrong with each; empty where nothing is
    shown_order  places of the candidates in the order they were shown; empty where nobody knows
    """

    annotator_key: str
    ranks: list[int | None]
    all_bad: bool = False
    strength: int | None = None
    flags: list[list[str]] = field(default_factory=list)
    shown_order: list[int] = field(default_factory=list)
    seconds: float | None = None
    late: bool = False
    revision: int = 1
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WantedRule:
    """A rule that a file speaks of, as far as it says which one that is.

    name     what messages and `--rule NAME=KEY` call it
    key      of the rule in force; empty where only the wording is given
    wording  the very words that were judged, which an earlier version may have; empty: those in force
    values   all that a rule has, so that a project without rules can be given it; None where the file does not say
    """

    name: str
    key: str = ""
    wording: str = ""
    values: Values | None = field(default=None, compare=False)

    @property
    def mark(self) -> str:
        """Tells it from the other rules of a file."""
        return f"{self.key}|{self.wording}"


@dataclass
class ImportedJudgement:
    """A verdict on whether a dialogue broke a rule, by somebody whom the source names."""

    rule: WantedRule
    annotator_key: str
    verdict: int
    turn_position: int | None = None
    reason: str = ""
    by_prober: bool = False
    tactics: list[str] = field(default_factory=list)
    seconds: float | None = None
    late: bool = False
    revision: int = 1
    source: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImportedReview:
    """What somebody whom the source names says of a text; one that `edited` it wrote the text that follows."""

    annotator_key: str
    verdict: str
    reason: str = ""
    seconds: float | None = None
    late: bool = False
    revision: int = 1
    source: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImportedText:
    """One text of a reply that was written to be imitated."""

    annotator_key: str
    content: str
    revision: int = 1
    withdrawn: bool = False
    pasted_share: float | None = None
    seconds: float | None = None
    late: bool = False
    reviews: list[ImportedReview] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImportedDemonstration:
    """A reply that was written to be imitated: every text of it, from the first to the one that stands.

    position     of the turn it answers; the turns after it, if any, go on from the reply
    edited_from  which of the dialogue's candidates it was made from, the first is 0
    """

    position: int
    texts: list[ImportedText]
    edited_from: int | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the source names somebody who accepted it, and nobody who sent it back."""
        reviews = sorted(self.texts[-1].reviews, key=lambda review: review.revision)
        newest = {review.annotator_key: review.verdict for review in reviews}
        return set(newest.values()) == {DemonstrationReview.Verdict.ACCEPTED}

    @property
    def characters(self) -> int:
        """Length of all that was written for it."""
        return sum(len(text.content) + sum(len(one.reason) for one in text.reviews) for text in self.texts)


@dataclass
class ImportedDialogue:
    """A dialogue as far as its candidates answer it.

    key             the source's name for it
    notes           what is unusual about it, for the report: each is counted
    rankings        who ranked the candidates and how; None where the source names nobody and gives the candidates a
                    rank
    probed          the rule it is meant to break; None where it was not made for that
    demonstrations  replies to turns of it that were written to be imitated; the last one is no turn itself
    group           what must stay on one side of the split, and `split` that side; empty where the source does not say
    is_promised     the authors ask for that side, so it is refused where it already lies on another
    """

    key: str
    turns: Messages
    candidates: list[ImportedCandidate] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rankings: list[ImportedRanking] | None = None
    judgements: list[ImportedJudgement] = field(default_factory=list)
    probed: WantedRule | None = None
    demonstrations: list[ImportedDemonstration] = field(default_factory=list)
    group: str = ""
    split: str = ""
    is_promised: bool = False

    @property
    def has_comparison(self) -> bool:
        return any(candidate.is_compared for candidate in self.candidates)

    @property
    def has_reply(self) -> bool:
        return any(turn["role"] == "assistant" for turn in self.turns)

    def answers(self, nobody: str) -> list[ImportedRanking]:
        """The rankings of its comparison; the one that its candidates' ranks are is by `nobody`."""
        if self.rankings is not None or not self.has_comparison:
            return self.rankings or []
        return [ImportedRanking(nobody, [one.rank if one.is_compared else None for one in self.candidates])]

    @property
    def characters(self) -> int:
        """Length of all its text, and that of its candidates."""
        ends = (turn for candidate in self.candidates for turn in candidate.turns)
        reasons = sum(len(judgement.reason) for judgement in self.judgements)
        written = sum(one.characters for one in self.demonstrations)
        return reasons + written + sum(len(turn["content"]) for turn in (*self.turns, *ends))

    def rules(self) -> list[WantedRule]:
        """The rules it was judged by or is meant to break, each once."""
        probed = [self.probed] if self.probed else []
        return list(dict.fromkeys([*probed, *(judgement.rule for judgement in self.judgements)]))

    def opening(self) -> Messages | None:
        """The turns up to the first by a user; None when no user has spoken."""
        for place, turn in enumerate(self.turns):
            if turn["role"] == "user":
                return self.turns[: place + 1]
        return None


Reader = Callable[[Lines, Problems], Iterator[ImportedDialogue]]


@dataclass(frozen=True)
class Format:
    """How a file of one kind is read: its lines (rows, records), and what they say.

    asks  names of the options that it reads
    """

    read: Reader
    lines: Callable[[Path, Problems, Advance], Lines] = Lines
    asks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choices:
    """What a manager says of the files of an import, where they do not say it themselves.

    accepted  demonstrations that nobody has reviewed count as accepted
    split     side of the split; empty: by hash
    options   what the format asks for besides files, by name
    """

    accepted: bool = False
    split: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Those that were made, for the import's row."""
        options = {name: str(value) if isinstance(value, Path) else value for name, value in self.options.items()}
        made = {"accepted": self.accepted, "split": self.split, **options}
        return {"said_by_manager": {name: value for name, value in made.items() if value}}

    def of(self, record: ImportedDialogue, file_format: str) -> ImportedDialogue:
        """The record with them; whoever accepts is called as the format is."""
        record.split = record.split or self.split
        unread = [one.texts[-1] for one in record.demonstrations if not one.texts[-1].reviews]
        for text in unread if self.accepted else ():
            text.reviews.append(ImportedReview(file_format, DemonstrationReview.Verdict.ACCEPTED))
        return record


NO_CHOICES = Choices()

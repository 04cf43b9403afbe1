"""Judged dialogues as plain values, in an order and under names that depend on their content alone.

A dialogue is named by the hash of its messages. Its verdicts stand below the rule that they count for: the newest
wording in their line, as it was when the snapshot was frozen; a verdict given on other words says which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from feedback.exports.comparisons import Messages, canonical, chunks, content_key, model_name, utc, whole_groups
from feedback.exports.pseudonyms import pseudonym
from feedback.models import Dialogue, Project, Rule, RuleJudgement
from feedback.rule_files import NAMES

OWN_FORMAT = "probes"  # the import format that reads these lines, and so knows what they say
NOT_SAID = ("ideas", "probe_quota", "weight")  # of a rule: how it is probed and paid, which nobody judges by
SAID = {name: ours for name, ours in NAMES.items() if name not in NOT_SAID}


@dataclass
class ExportedVerdict:
    """One annotator's verdict, 1 definitely broken to 5 definitely followed."""

    annotator_id: str
    by_prober: bool
    verdict: int
    turn: int | None  # the place of the message that broke it
    reason: str
    tactics: list[str]
    seconds: float | None
    late: bool
    revision: int
    wording: str | None  # what was judged, where it is not the rule's wording
    created_at: str | None  # None where a source gives no time
    meta: str  # JSON text: what the source says


@dataclass
class ExportedRule:
    """A rule in the words that stand, and every verdict of the snapshot that counts for it."""

    rule: dict[str, Any]  # key, name, category, theme, wording, breaks, keeps, sensitive, warning
    p_broken: float
    judgements: list[ExportedVerdict]


@dataclass
class ExportedJudged:
    """A dialogue, the rule it was to break, and what people say of it by each rule."""

    dialogue_id: str
    kind: str
    split: str
    group: str
    model: str
    messages: Messages
    probed: dict[str, Any] | None  # the rule it was meant to break
    rules: list[ExportedRule]
    source: str  # the import's format; empty for what was collected here
    source_key: str
    meta: str

    def number(self, place: int) -> None:
        """Tell this dialogue from others of exactly the same messages."""
        self.dialogue_id = f"{self.dialogue_id}-{place}"


class JudgedReader:
    """Reads the dialogues that a list of judgements is about.

    Two passes, as `ComparisonReader`: memory holds names and never the texts.
    standing  {id of a judged or probed rule: id of the rule it counts for}
    """

    def __init__(self, project: Project, judgement_ids: Sequence[int], standing: Mapping[int, int]) -> None:
        self.project = project
        self.answers: dict[int, list[int]] = defaultdict(list)
        for chunk in chunks(judgement_ids):
            for pk, dialogue in RuleJudgement.objects.filter(pk__in=chunk).values_list("pk", "dialogue_id"):
                self.answers[dialogue].append(pk)
        rules = {rule.pk: rule for rule in Rule.objects.filter(rule_set__project=project)}
        self.wordings = {pk: rule.wording for pk, rule in rules.items()}
        self.rules = {judged: rules[head] for judged, head in standing.items()}
        self.order: list[tuple[str, int]] = []

    def __len__(self) -> int:
        """How many dialogues there are."""
        return len(self.answers)

    def sort(self) -> Iterator[int]:
        """Name and sort everything; yields how many dialogues each step has done."""
        for chunk in chunks(sorted(self.answers)):
            found = Dialogue.objects.filter(pk__in=chunk).prefetch_related("turns")
            self.order += [(_key(dialogue.messages()), dialogue.pk) for dialogue in found]
            yield len(chunk)
        self.order.sort()

    def read(self) -> Iterator[ExportedJudged]:
        """Every dialogue in the order of its name; those of exactly the same messages are numbered from 2."""
        for chunk in whole_groups(self.order):
            found = self._records([pk for _, pk in chunk])
            for _, twins in groupby(chunk, key=lambda pair: pair[0]):
                yield from _told_apart([found[pk] for _, pk in twins])

    def _records(self, ids: list[int]) -> dict[int, ExportedJudged]:
        found: dict[int, ExportedJudged] = {}
        for some in chunks(ids):
            judgements = self._judgements(some)
            related = ("prompt__group", "policy", "source_import", "probe")
            rows = Dialogue.objects.filter(pk__in=some).select_related(*related).prefetch_related("turns")
            found |= {dialogue.pk: self._record(dialogue, judgements[dialogue.pk]) for dialogue in rows}
        return found

    def _judgements(self, ids: list[int]) -> dict[int, list[RuleJudgement]]:
        found: dict[int, list[RuleJudgement]] = defaultdict(list)
        for some in chunks(pk for dialogue in ids for pk in self.answers[dialogue]):
            for judgement in RuleJudgement.objects.filter(pk__in=some).select_related("source_import"):
                found[judgement.dialogue_id].append(judgement)
        return found

    def _record(self, dialogue: Dialogue, judgements: list[RuleJudgement]) -> ExportedJudged:
        messages = dialogue.messages()
        probe = getattr(dialogue, "probe", None)
        by_rule: dict[int, list[RuleJudgement]] = defaultdict(list)
        for judgement in judgements:
            by_rule[self.rules[judgement.rule_id].pk].append(judgement)
        group = dialogue.prompt.group if dialogue.prompt else None
        return ExportedJudged(
            dialogue_id=_key(messages),
            split=group.split if group else "",
            group=group.key if group else "",
            messages=messages,
            probed=said_of(self.rules[probe.rule_id]) if probe and probe.rule_id in self.rules else None,
            rules=sorted(map(self._rule, by_rule.values()), key=lambda one: canonical(one.rule)),
            source_key=dialogue.source_key,
            **_origin(dialogue),
        )

    def _rule(self, judgements: list[RuleJudgement]) -> ExportedRule:
        rule = self.rules[judgements[0].rule_id]
        verdicts = [self._verdict(judgement, rule) for judgement in judgements]
        return ExportedRule(
            rule=said_of(rule),
            p_broken=fmean(judgement.broken for judgement in judgements),
            judgements=sorted(verdicts, key=lambda one: (one.annotator_id, one.revision, canonical(asdict(one)))),
        )

    def _verdict(self, judgement: RuleJudgement, rule: Rule) -> ExportedVerdict:
        told = _told_by_us(judgement.source, judgement.source_import)
        judged = self.wordings[judgement.rule_id]
        return ExportedVerdict(
            annotator_id=pseudonym(self.project, judgement),
            by_prober=judgement.by_prober,
            verdict=judgement.verdict,
            turn=judgement.turn_position,
            reason=judgement.reason,
            tactics=sorted(judgement.tactics),
            seconds=judgement.seconds,
            late=judgement.late,
            revision=judgement.revision,
            wording=told.get("wording") or (judged if judged != rule.wording else None),
            created_at=told.get("created_at") if judgement.source_import_id else utc(judgement.created_at),
            meta=canonical(told.get("meta", {})),
        )


def said_of(rule: Rule) -> dict[str, Any]:
    """A rule as the lines have it, under the names of a rule file: what people judge by, and what may appear."""
    return {name: getattr(rule, ours) for name, ours in SAID.items()}


def _key(messages: Messages) -> str:
    return content_key("judged dialogue", messages)


def _origin(dialogue: Dialogue) -> dict[str, str]:
    """Kind, model, source and what else is said of a dialogue: by its row, or by the line it was imported from."""
    told = _told_by_us(dialogue.source, dialogue.source_import)
    source = dialogue.source_import
    return {
        "kind": told.get("kind") or dialogue.kind,
        "model": model_name(dialogue.policy, dialogue.source),
        "source": told.get("source", source.format if source else ""),
        "meta": canonical(told.get("meta", {})),
    }


def _told_by_us(said: dict[str, Any], source: Any) -> dict[str, Any]:
    """What an import says, by the names of our own lines; all that another format says is its meta."""
    if source is None:
        return {}
    if source.format == OWN_FORMAT:
        return said
    return {"meta": {name: value for name, value in said.items() if name != "model_name"}}


def _told_apart(twins: list[ExportedJudged]) -> list[ExportedJudged]:
    """Dialogues of one name, in the order of what is said of them; all but the first get a number."""
    if len(twins) > 1:
        twins.sort(key=lambda twin: canonical(asdict(twin)))
        for place, twin in enumerate(twins[1:], start=2):
            twin.number(place)
    return twins


# Rows for trainers


def unpaired_rows(judged: ExportedJudged) -> list[dict[str, Any]]:
    """A row for every rule of a dialogue that people call broken or kept together; none where they are undecided.

    Columns  prompt, completion (lists of role and content), label (True: kept), then flat side columns
    """
    decided = [one for one in judged.rules if one.p_broken != 0.5]
    return [_row(judged, one) for one in decided]


def _row(judged: ExportedJudged, one: ExportedRule) -> dict[str, Any]:
    kept = one.p_broken < 0.5
    turn = reply_meant(judged.messages, [] if kept else one.judgements)
    return {
        "prompt": judged.messages[:turn],
        "completion": [judged.messages[turn]],
        "label": kept,
        "rule_key": one.rule["key"],
        "rule_name": one.rule["name"],
        "rule_category": one.rule["category"],
        "rule_wording": one.rule["wording"],
        "p_broken": one.p_broken,
        "verdicts": len(one.judgements),
        "agreement": _agreement(one, kept),
        "probed": judged.probed is not None and judged.probed == one.rule,
        "dialogue_id": judged.dialogue_id,
        "turn": turn,
        "model": judged.model,
        "split": judged.split,
        "meta": canonical({"source": judged.source, "source_key": judged.source_key} if judged.source else {}),
    }


def reply_meant(messages: Messages, judgements: Iterable[ExportedVerdict]) -> int:
    """The place of the reply a row is about: the one most verdicts of "broken" mark, the earliest of several; else the
    model's last."""
    marked = [one.turn for one in judgements if one.verdict <= 2 and one.turn is not None]
    if marked:
        return min(set(marked), key=lambda place: (-marked.count(place), place))
    return max(place for place, message in enumerate(messages) if message["role"] == "assistant")


def _agreement(one: ExportedRule, kept: bool) -> float | None:
    """The share of those who took a side that took this one; None where fewer than two did."""
    sides = [verdict.verdict > 3 for verdict in one.judgements if verdict.verdict != 3]
    return sides.count(kept) / len(sides) if len(sides) > 1 else None


COUNTED = ("dialogues", "verdicts", "probes", "differing", "broken", "kept", "undecided")


def count(judged: ExportedJudged, rows: list[dict[str, Any]]) -> dict[str, int]:
    """What one dialogue adds to the counts, by the names in COUNTED; broken, kept and undecided are of its rules."""
    steps = [{verdict.verdict for verdict in one.judgements} for one in judged.rules]
    kept = sum(row["label"] for row in rows)
    return {
        "dialogues": 1,
        "verdicts": sum(len(one.judgements) for one in judged.rules),
        "probes": judged.probed is not None,
        "differing": sum(len(found) > 1 for found in steps),
        "broken": len(rows) - kept,
        "kept": kept,
        "undecided": len(judged.rules) - len(rows),
    }


def unpaired_schema() -> Any:
    """The columns of a row, as pyarrow types: the same in every file, whatever it happens to hold."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.schema(
        [
            ("prompt", messages),
            ("completion", messages),
            ("label", pa.bool_()),
            *((name, pa.string()) for name in ("rule_key", "rule_name", "rule_category", "rule_wording")),
            ("p_broken", pa.float64()),
            ("verdicts", pa.int64()),
            ("agreement", pa.float64()),
            ("probed", pa.bool_()),
            ("dialogue_id", pa.string()),
            ("turn", pa.int64()),
            *((name, pa.string()) for name in ("model", "split", "meta")),
        ]
    )

"""Builders of rows with good defaults. Alice annotates, Bob reviews, Charlie is a stranger, Maria manages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.utils import timezone

from feedback import (
    consents,
    corpus,
    demonstration_reviews,
    demonstrations,
    demonstrations_wanted,
    dialogues,
    generation,
    judgements,
    probing,
    queue,
    rankings,
    ratings,
    ratings_wanted,
    scale_files,
    scale_sets,
    slots,
    work_items,
)
from feedback.models import (
    Candidate,
    Comparison,
    Consent,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Document,
    GenerationRequest,
    Import,
    Membership,
    ModelVersion,
    Probe,
    Project,
    Prompt,
    PromptGroup,
    Ranking,
    Rating,
    Rule,
    RuleJudgement,
    RuleScore,
    RuleSet,
    ScaleSet,
    Slot,
    Turn,
    User,
    WorkItem,
)
from feedback.prompts import add_prompt

PASSWORD = "correct horse battery"  # of the test people only


def make_user(name: str = "alice", **fields: Any) -> User:
    user = User.objects.filter(username=name).first()
    return user or User.objects.create_user(name, password=PASSWORD, first_name=name.capitalize(), **fields)


def make_project(slug: str = "plant-desk", *, with_policy: bool = True, **fields: Any) -> Project:
    project, made = Project.objects.get_or_create(
        slug=slug, defaults={"name": slug.replace("-", " ").capitalize(), "ready_dialogues": 0} | fields
    )
    if made and with_policy:
        project.policy = make_model(project, state="passed")
        project.save(update_fields=["policy"])
    return project


def make_member(project: Project, name: str = "alice", role: str = Membership.Role.ANNOTATOR) -> User:
    user = make_user(name)
    Membership.objects.get_or_create(project=project, user=user, defaults={"role": role})
    return user


def make_model(project: Project, kind: str = ModelVersion.Kind.POLICY, **fields: Any) -> ModelVersion:
    number = ModelVersion.objects.filter(project=project, kind=kind).count() + 1
    return ModelVersion.objects.create(
        **{"project": project, "kind": kind, "number": number, "location": f"{kind}-{number}"} | fields
    )


def make_prompt(project: Project, text: str = "Why are my basil leaves yellow?", split: str = "train") -> Prompt:
    return add_prompt(project=project, messages=[{"role": "user", "content": text}], split=split, group=text[:200])


def make_dialogue(
    project: Project | None = None, *, text: str = "Why are my basil leaves yellow?", **fields: Any
) -> Dialogue:
    project = project or make_project()
    split = fields.pop("split", PromptGroup.Split.TRAIN)
    fields.setdefault("prompt", make_prompt(project, text, split))
    dialogue = Dialogue.objects.create(project=project, policy=project.policy, **fields)
    Turn.objects.create(dialogue=dialogue, position=0, role="user", content=text)
    return dialogue


def make_request(dialogue: Dialogue | None = None, **fields: Any) -> GenerationRequest:
    dialogue = dialogue or make_dialogue()
    request = generation.request_candidates(dialogue=dialogue)
    if fields:
        GenerationRequest.objects.filter(pk=request.pk).update(**fields)
        request.refresh_from_db()
    return request


def answer_request(request: GenerationRequest, texts: Sequence[str] | None = None) -> Comparison:
    """Do what a generation worker does: claim, store each candidate, complete."""
    claimed = queue.claim(GenerationRequest, request.pk)
    assert claimed is not None
    texts = texts or [f"Reply {index} to this." for index in range(claimed.wanted)]
    for index, text in enumerate(texts):
        generation.store_candidate(claimed, index=index, text=text, seed=index, mean_logprob=-1.0)
    fewer = "" if len(texts) == claimed.wanted else "redrawing gave equal texts"
    comparison = generation.complete_request(claimed, fewer_because=fewer)
    assert comparison is not None
    return comparison


def make_comparison(
    project: Project | None = None, *, candidates: int = 4, texts: Sequence[str] | None = None, **dialogue_fields: Any
) -> Comparison:
    """A dialogue whose replies are there, waiting to be ranked."""
    dialogue = make_dialogue(project, **dialogue_fields)
    Project.objects.filter(pk=dialogue.project_id).update(candidates_per_turn=candidates)
    return answer_request(generation.request_candidates(dialogue=dialogue), texts)


def make_chat(project: Project | None = None, *, name: str = "alice", answered: bool = True, **fields: Any) -> Slot:
    """A chat-and-rank slot held by a member, its first replies there (or still on the way)."""
    project = project or make_project()
    user = make_member(project, name)
    prompt = make_prompt(project, fields.pop("text", "Why are my basil leaves yellow?"))
    item = dialogues.open_dialogue(project=project, prompt=prompt)
    if answered:
        answer_request(GenerationRequest.objects.get(dialogue=item.dialogue))
    slot = slots.claim_slot(item.slots.get().pk, user=user)
    assert slot is not None
    return slot


def make_rank_work(comparison: Comparison | None = None, *, wanted: int = 2) -> WorkItem:
    return dialogues.ask_for_rankings(comparison=comparison or make_comparison(), wanted=wanted)


def make_rank_slot(comparison: Comparison | None = None, *, name: str = "alice", wanted: int = 2) -> Slot:
    """A rank-only slot held by a member."""
    item = make_rank_work(comparison, wanted=wanted)
    user = make_member(item.project, name)
    slot = slots.next_slot(user=user, project=item.project, kind=WorkItem.Kind.RANK)
    assert slot is not None
    return slot


def make_ranking(slot: Slot | None = None, comparison: Comparison | None = None, **answer: Any) -> Ranking:
    """A stored ranking: by default the candidates in the order they were made, best first."""
    slot = slot or make_rank_slot(comparison)
    comparison = comparison or slot.work_item.comparison or slot.work_item.dialogue.comparisons.latest("pk")
    answer.setdefault("ranks", ranks_by_index(comparison))
    answer.setdefault("submit_key", uuid4())
    return rankings.record_ranking(slot=slot, comparison=comparison, **answer)


def make_rule_set(
    project: Project | None = None, *, published: bool = True, rules: int = 2, sensitive: int = 0, **fields: Any
) -> RuleSet:
    """A rule set with rules r1, r2, …, the last few of them sensitive; published unless it is to be edited."""
    project = project or make_project()
    found = RuleSet.objects.create(project=project, number=project.rule_sets.count() + 1)
    for position in range(1, rules + 1):
        is_sensitive = position > rules - sensitive
        warned = (
            {"theme": "Poison", "warning": "Wrong advice about poison.", "is_sensitive": True} if is_sensitive else {}
        )
        make_rule(found, key=f"r{position}", position=position, **warned | fields)
    if published:
        RuleSet.objects.filter(pk=found.pk).update(state=RuleSet.State.PUBLISHED, published_at=timezone.now())
        found.refresh_from_db()
    return found


def make_rule(rule_set: RuleSet, **fields: Any) -> Rule:
    position = rule_set.rules.count() + 1
    values = {
        "key": f"r{position}", "position": position, "name": f"Rule {position}", "category": Rule.Category.HARM,
        "wording": f"Do not do the thing number {position}.",
    }  # fmt: skip
    return Rule.objects.create(rule_set=rule_set, **values | fields)


def make_probe(rule: Rule | None = None, *, name: str = "alice", ended: bool = True) -> Probe:
    """An ended dialogue of one exchange, meant to break a rule."""
    rule = rule or make_rule_set().rules.all()[0]
    project = rule.rule_set.project
    dialogue = Dialogue.objects.create(
        project=project, kind=Dialogue.Kind.PROBE, policy=project.policy, author=make_member(project, name),
        ended_at=timezone.now() if ended else None,
    )  # fmt: skip
    for position, (role, content) in enumerate((("user", "Do the thing."), ("assistant", "I did the thing."))):
        Turn.objects.create(dialogue=dialogue, position=position, role=role, content=content)
    return Probe.objects.create(dialogue=dialogue, rule=rule)


def make_rule_score(probe: Probe | None = None, *, p_broken: float = 0.5, **fields: Any) -> RuleScore:
    """What a rule model says of a probe."""
    probe = probe or make_probe()
    version = fields.pop("model_version", None) or make_model(probe.dialogue.project, ModelVersion.Kind.RULE)
    return RuleScore.objects.create(
        dialogue=probe.dialogue, rule=probe.rule, model_version=version, p_broken=p_broken, **fields
    )


def make_judgement(probe: Probe | None = None, *, name: str = "bob", verdict: int = 1, **fields: Any) -> RuleJudgement:
    """Another person's verdict on a probe, in a slot of its own."""
    probe = probe or make_probe()
    project = probe.dialogue.project
    user = make_member(project, name)
    item = work_items.open_work(
        project=project, kind=WorkItem.Kind.JUDGE, dialogue=probe.dialogue, rule=probe.rule, wanted=2
    )
    slot = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=user)
    assert slot is not None
    slots.fill(slot)
    return RuleJudgement.objects.create(
        dialogue=probe.dialogue, rule=probe.rule, verdict=verdict, slot=slot, annotator=user,
        annotator_key=f"u{user.pk}", **fields,
    )  # fmt: skip


def make_probe_slot(rule: Rule | None = None, *, name: str = "alice", replies: int = 1) -> Slot:
    """A probe in its prober's hands, to which the model has answered so many times."""
    rule = rule or make_rule_set(make_project(probes_open=True)).rules.all()[0]
    slot = probing.open_probe(user=make_member(rule.rule_set.project, name), rule=rule)
    for number in range(replies):
        exchange(slot, f"Do the thing, {number}.", "I did the thing.")
    return slot


def exchange(slot: Slot, message: str, reply: str) -> None:
    """A message in a probe, and the one reply to it."""
    chat = dialogues.look_at_chat(slot)
    request = dialogues.send_message(slot=slot, text=message, after_position=chat.last_position)
    claimed = queue.claim(GenerationRequest, request.pk)
    assert claimed is not None
    generation.store_candidate(claimed, index=0, text=reply)
    generation.complete_request(claimed)


def make_verdict(slot: Slot | None = None, verdict: int = 1, **answer: Any) -> RuleJudgement:
    """A stored verdict; a prober who saw the rule broken marks the first reply."""
    slot = slot or make_probe_slot()
    if slot.work_item.kind == WorkItem.Kind.PROBE and verdict <= 2:
        answer.setdefault("turn_position", 1)
    answer.setdefault("submit_key", uuid4())
    return judgements.record_judgement(slot=slot, verdict=verdict, **answer)


def make_judge_slot(probe: RuleJudgement | None = None, *, name: str = "bob") -> Slot:
    """A probe to judge in another person's hands."""
    project = (probe or make_verdict()).dialogue.project
    slot = slots.next_slot(user=make_member(project, name), project=project, kind=WorkItem.Kind.JUDGE)
    assert slot is not None
    return slot


def make_demonstration(
    dialogue: Dialogue | None = None, *, name: str = "alice", content: str = "Water it less.", **fields: Any
) -> Demonstration:
    """A row as it stands in the database: one person's reply to a dialogue, in a slot of its own."""
    dialogue = dialogue or make_dialogue(kind=Dialogue.Kind.DEMONSTRATION)
    user = make_member(dialogue.project, name)
    slot = _filled_slot(user, project=dialogue.project, kind=WorkItem.Kind.DEMONSTRATE, dialogue=dialogue, wanted=2)
    values = {"slot": slot, "annotator": user, "annotator_key": f"u{user.pk}", "position": 0, "fingerprint": "0" * 64}
    return Demonstration.objects.create(dialogue=dialogue, content=content, **values | fields)


def make_demonstration_review(
    demonstration: Demonstration | None = None, *, name: str = "bob", verdict: str = "accepted", **fields: Any
) -> DemonstrationReview:
    """A row as it stands in the database: another person's review, in a slot of its own."""
    demonstration = demonstration or make_demonstration()
    project = demonstration.dialogue.project
    user = make_member(project, name)
    slot = _filled_slot(user, project=project, kind=WorkItem.Kind.REVIEW, demonstration=demonstration)
    values = {"slot": slot, "annotator": user, "annotator_key": f"u{user.pk}"}
    return DemonstrationReview.objects.create(demonstration=demonstration, verdict=verdict, **values | fields)


def make_document(
    project: Project | None = None, text: str = "A fern drinks twice a week.", *, title: str = "Ferns", source: str = ""
) -> Document:
    """In a project's corpus, from an import of its own."""
    project = project or make_project()
    number = Import.objects.filter(project=project).count()
    taken = Import.objects.create(project=project, format="corpus", file_name=f"{number}.md", sha256=f"{number:064d}")
    whole = corpus.WholeText(title, source or taken.file_name, text)
    corpus.add_documents(source_import=taken, texts=[whole])
    return Document.objects.get(project=project, content_hash=whole.content_hash())


def make_write_slot(
    project: Project | None = None, *, name: str = "alice", text: str = "Why are my basil leaves yellow?", **asked: Any
) -> Slot:
    """A prompt in the hands of a member who is to write the reply."""
    project = project or make_project(demonstrations_open=True)
    item = demonstrations_wanted.ask_for_demonstrations(prompt=make_prompt(project, text), **asked)
    slot = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=make_member(project, name))
    assert slot is not None
    return slot


def write(slot: Slot | None = None, content: str = "Water it less.", **answer: Any) -> Demonstration:
    """A reply as its writer sends it."""
    answer.setdefault("submit_key", uuid4())
    return demonstrations.record_demonstration(slot=slot or make_write_slot(), content=content, **answer)


def make_review_slot(demonstration: Demonstration | None = None, *, name: str = "bob") -> Slot:
    """A written reply in another person's hands."""
    demonstration = demonstration or write()
    item = demonstration.work_items.get(kind=WorkItem.Kind.REVIEW)
    slot = slots.claim_slot(item.slots.get(state="free").pk, user=make_member(item.project, name))
    assert slot is not None
    return slot


def review(slot: Slot | None = None, verdict: str = "accepted", **answer: Any) -> DemonstrationReview:
    """What another person says of a written reply."""
    answer.setdefault("submit_key", uuid4())
    return demonstration_reviews.record_review(slot=slot or make_review_slot(), verdict=verdict, **answer)


def make_scale_set(
    project: Project | None = None, key: str = "lamda", *, is_open: bool = True, **fields: Any
) -> ScaleSet:
    """A ready-made set of questions in a project, open where people answer it."""
    project = project or make_project()
    found = scale_files.read_file(Path(key))
    scale_set = ScaleSet.objects.filter(project=project, key=key).first()
    scale_set = scale_set or scale_sets.add_set(project=project, key=key, found=found, by=None)
    fields = {"is_open": is_open and not found.by_program, "ready": 0} | fields
    ScaleSet.objects.filter(pk=scale_set.pk).update(**fields)
    scale_set.refresh_from_db()
    return scale_set


def make_rate_slot(
    scale_set: ScaleSet | None = None, candidate: Candidate | None = None, *, name: str = "alice", wanted: int = 2
) -> Slot:
    """A reply to be rated in the hands of a member."""
    scale_set = scale_set or make_scale_set()
    candidate = candidate or make_comparison(scale_set.project, candidates=2).candidates.all()[0]
    item = ratings_wanted.ask_for_ratings(candidate=candidate, scale_set=scale_set, wanted=wanted)
    slot = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=make_member(item.project, name))
    assert slot is not None
    return slot


ANSWERS = {
    "lamda": {"sensible": "yes", "specific": "maybe", "interesting": "no", "harm": "no", "unfair": "no",
              "misleading": "no", "grounded": "no_claims"},
    "instructgpt": {"overall": "5", "work": "fails_task,makes_things_up", "content": "none"},
    "sparrow": {"plausible": "yes", "supported": "no_evidence"},
}  # fmt: skip


def rate(slot: Slot | None = None, *, submit_key: Any = None, seconds: float | None = None, revises: int = 0,
         **answers: str) -> list[Rating]:  # fmt: skip
    """All that a person says of a reply; what is not given is as in ANSWERS."""
    slot = slot or make_rate_slot()
    scale_set = slot.work_item.scale_set
    assert scale_set is not None
    return ratings.record_ratings(
        slot=slot, answers=ANSWERS[scale_set.key] | answers, submit_key=submit_key or uuid4(), seconds=seconds,
        revises=revises,
    )  # fmt: skip


def make_rating(**fields: Any) -> Rating:
    """A row as it stands in the database: one person's answer to one question, in a slot of its own."""
    slot = make_rate_slot()
    slots.fill(slot)
    assert slot.work_item.scale_set is not None
    values = {
        "candidate": slot.work_item.candidate, "scale": slot.work_item.scale_set.scales.all()[0], "slot": slot,
        "annotator": slot.annotator, "annotator_key": f"u{slot.annotator_id}", "value": "yes",
    }  # fmt: skip
    return Rating.objects.create(**values | fields)


def _filled_slot(user: User, **about: Any) -> Slot:
    item = work_items.open_work(**about)
    slot = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=user)
    assert slot is not None
    slots.fill(slot)
    slot.refresh_from_db()
    return slot


def agree(project: Project, name: str = "alice", theme: str = "Poison") -> Consent:
    """Consent to a theme of sensitive rules, in the words it has now."""
    user = make_member(project, name)
    told = {found.name: found for found in consents.themes(user, project)}[theme]
    return consents.give_consent(user=user, project=project, theme=theme, wording=told.wording)


def ranks_by_index(comparison: Comparison, places: Sequence[int] | None = None) -> Mapping[int, int]:
    """{candidate id: place} for the candidates in the order they were made."""
    candidates: list[Candidate] = list(comparison.candidates.order_by("index"))
    return {candidate.pk: place for candidate, place in zip(candidates, places or range(1, 10), strict=False)}


def lapse(slot: Slot) -> None:
    """Let a slot's time run out, as the sweep would find it."""
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    slots.lapse_slots()
    slot.refresh_from_db()

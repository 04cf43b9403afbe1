"""Open-Assistant's sampling reports: what one model said to many prompts, under several ways of sampling.

A report is one JSON object. Each of its prompts becomes a dialogue of one user turn, whose candidates are all outputs;
nobody compared them, so there is no comparison. What the report says of itself stays with its first dialogue, what it
says of a way of sampling with every dialogue.

Source  Köpf et al. 2023, arXiv:2304.07327; the sampling reports of LAION-AI/Open-Assistant
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedDialogue

LONGEST_NAME = 200  # characters, of a model or a way of sampling: each stands at every output


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue per prompt of each report."""
    for number, record in lines:
        try:
            yield from read_report(record)
        except Malformed as err:
            problems.add(number, err)


def read_report(record: dict[str, Any]) -> list[ImportedDialogue]:
    """The dialogues of a report, all of them or none."""
    model_name = _name(record, "model_name", "")
    prompts = _listed(record, "prompts", "")
    about = kept_fields(record, without={"prompts"})
    dialogues = [_dialogue(prompt, place, model_name) for place, prompt in enumerate(prompts)]
    if not dialogues:
        raise Malformed("field prompts is empty. Leave the report out.")
    dialogues[0].source["report"] = about
    return dialogues


def _dialogue(prompt: Any, place: int, model_name: str) -> ImportedDialogue:
    path = f"prompts[{place}]."
    if not isinstance(prompt, dict):
        raise Malformed(f"field {path[:-1]} should be a prompt with its results, not {shown(prompt)}.")
    content = text_field(prompt, "prompt", path)
    if not content.strip():
        raise Malformed(f"field {path}prompt is empty. Leave the prompt out, or fill it.")
    results = _listed(prompt, "results", path)
    candidates = [
        candidate
        for at, one in enumerate(results)
        for candidate in _outputs(one, at, f"{path}results[{at}].", model_name)
    ]
    fields = [kept_fields(one, without={"outputs"}, path=f"{path}results[{at}].") for at, one in enumerate(results)]
    others = kept_fields(prompt, without={"prompt", "results"}, path=path)
    return ImportedDialogue(
        key=f"prompt {place + 1}",
        turns=[{"role": "user", "content": content}],
        candidates=candidates,
        source={"results": fields} | ({"fields": others} if others else {}),
        notes=tuple("empty replies, kept and flagged" for one in candidates if one.is_empty),
    )


def _outputs(result: Any, at: int, path: str, model_name: str) -> list[ImportedCandidate]:
    """What one way of sampling gave; a candidate names it, and its place among those of the dialogue."""
    if not isinstance(result, dict):
        raise Malformed(f"field {path[:-1]} should be a result with its outputs, not {shown(result)}.")
    source = {"model_name": model_name, "sampling_config": _name(result, "sampling_config", path), "result": at}
    found = []
    for place, output in enumerate(_listed(result, "outputs", path)):
        text = text_field({"": output}, "", f"{path}outputs[{place}]")
        turns = [{"role": "assistant", "content": text}]
        found.append(ImportedCandidate(turns=turns, is_compared=False, source=source))
    return found


def _name(record: dict[str, Any], name: str, path: str) -> str:
    value = text_field(record, name, path)
    if not value or len(value) > LONGEST_NAME:
        raise Malformed(f"field {path}{name} should have 1 to {LONGEST_NAME} characters.")
    return value


def _listed(record: dict[str, Any], name: str, path: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise Malformed(f"field {path}{name} should be a list, not {shown(value)}. Is this a sampling report?")
    return value

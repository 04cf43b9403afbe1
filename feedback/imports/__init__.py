"""Data taken in: one module per format reads a file's lines; what they have in common lies beside.

A format is a function `read(lines, problems)` that yields `ImportedDialogue`s, one parsed line or record in memory at a
time, and hands those it cannot take to `problems`. Nothing is written before every line of every file was read without
one.
"""

from feedback.exports import comparisons, demonstrated, judged
from feedback.imports import (
    argilla,
    demonstrations,
    gsm8k,
    hh_rlhf,
    human_eval,
    label_studio,
    llmbar,
    mt_bench,
    open_assistant,
    open_assistant_reports,
    openai_moderation,
    pandalm,
    probes,
    rankings,
    self_instruct,
    trl,
    xstest,
)
from feedback.imports.csv_rows import CsvRows
from feedback.imports.json_records import JsonRecords, records_or_lines
from feedback.imports.records import Format

ABOUT_TOOLS = frozenset({"prompt_field", "reply_fields", "question", "choices"})  # what exports of tools leave open

FORMATS: dict[str, Format] = {
    "argilla": Format(argilla.read, records_or_lines, ABOUT_TOOLS | {"rated"}),
    demonstrated.OWN_FORMAT: Format(demonstrations.read),
    "gsm8k": Format(gsm8k.read, records_or_lines),
    "hh-rlhf": Format(hh_rlhf.read),
    "human-eval": Format(human_eval.read, records_or_lines),
    "label-studio": Format(label_studio.read, records_or_lines, ABOUT_TOOLS | {"labelling_config"}),
    "llmbar": Format(llmbar.read, records_or_lines),
    "mt-bench": Format(mt_bench.read, records_or_lines),
    "open-assistant": Format(open_assistant.read),
    "open-assistant-reports": Format(open_assistant_reports.read, JsonRecords),
    "openai-moderation": Format(openai_moderation.read, records_or_lines),
    "pandalm": Format(pandalm.read, records_or_lines),
    judged.OWN_FORMAT: Format(probes.read),
    comparisons.OWN_FORMAT: Format(rankings.read),
    "self-instruct": Format(self_instruct.read, records_or_lines),
    "trl": Format(trl.read, records_or_lines),
    "xstest": Format(xstest.read, CsvRows),
}

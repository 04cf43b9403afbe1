"""The dataset card of a snapshot: what is in it, for people and for `datasets.load_dataset`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from feedback.exports.layouts import LAYOUTS

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
EXCLUDED_NOTHING = "Nothing was left out."


@dataclass(frozen=True)
class Words:
    """What the card of one kind of snapshot says.

    columns  {count: its head in the table}
    """

    title: str
    tags: tuple[str, ...]
    task: str
    origin: str
    simulated: str
    columns: dict[str, str]
    reading: str


def render(manifest: dict[str, Any]) -> str:
    """The card as Markdown with front matter. It depends on the manifest alone: the same content is the same card."""
    return f"---\n{_front_matter(manifest)}---\n\n{_body(manifest)}"


def _front_matter(manifest: dict[str, Any]) -> str:
    """YAML in which every value is JSON, so that no text can break out of its place."""
    words, layout = WORDS[manifest["kind"]], LAYOUTS[manifest["kind"]]
    lines = {
        "pretty_name": f"{manifest['project']['name']}: {words.title}",
        "tags": [*words.tags, "rlhf", "trl", "nestbox"],
        "task_categories": [words.task],
        "size_categories": [size_category(layout.row_count(manifest["counts"]["total"]))],
        "configs": _configs(manifest),
    }
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in lines.items())


def size_category(rows: int) -> str:
    """The hub's name for a number of rows.

    >>> size_category(999), size_category(1000)
    ('n<1K', '1K<n<10K')
    """
    return next((name for below, name in SIZES if rows < below), "n>10M")


def _configs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What `load_dataset` finds. A split without rows is left out: it has a file, but nothing to infer columns from."""
    layout, splits = LAYOUTS[manifest["kind"]], manifest["counts"]["splits"]
    filled = [split for split, counts in splits.items() if layout.row_count(counts)]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in filled]
    return [{"config_name": layout.kind, "default": True, "data_files": files}] if files else []


def _body(manifest: dict[str, Any]) -> str:
    project, words = manifest["project"], WORDS[manifest["kind"]]
    parts = [
        f"# {_plain(project['name'])}: {words.title}\n",
        f"**{words.simulated}**\n" if project["is_rehearsal"] else f"{words.origin}\n",
        _table(manifest["counts"], words.columns),
        words.reading,
        f"## What was left out\n\n{_exclusions(manifest['excluded'])}\n",
        f"Identity of this snapshot (sha256 over its JSONL files): `{manifest['identity']}`\n",
    ]
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|&" else char for char in " ".join(text.split()))


def _table(counts: dict[str, Any], columns: dict[str, str]) -> str:
    head = f"| split | {' | '.join(columns.values())} |\n|---|{'---:|' * len(columns)}\n"
    rows = [*counts["splits"].items(), ("all", counts["total"])]
    return head + "".join(
        f"| {name} | " + " | ".join(f"{row.get(column, 0):,}" for column in columns) + " |\n" for name, row in rows
    )


def _exclusions(excluded: dict[str, int]) -> str:
    return "\n".join(f"- {count:,}: {_plain(reason)}" for reason, count in sorted(excluded.items())) or EXCLUDED_NOTHING


PREFERENCE_READING = """## Reading it

```python
from datasets import load_dataset

pairs = load_dataset("PATH OF THIS FOLDER")  # prompt, chosen, rejected, margin and flat side columns
answers = load_dataset("json", data_files="PATH OF THIS FOLDER/rankings/train.jsonl")  # every answer as it was given
```

- `data/*.parquet` and `data/*.jsonl` hold the same rows: one for every pair of replies an annotator told apart, in the
  conversational form TRL reads. A reply may be several turns long.
- `rankings/*.jsonl` holds every answer as it was given: all candidates, places with ties, unranked replies, "none is
  good", strength, flags, the order shown and the time taken.
- `margin` is 1, 2/3, 1/3 or 0 for pairs with the best reply in them, by how clear the annotator found it, else 0.
- Train, validation and test share no opening. Annotators have pseudonyms.
- `manifest.json` holds counts, filters and the sha256 of every file.
"""

RULES_READING = """## Reading it

```python
from datasets import load_dataset

rows = load_dataset("PATH OF THIS FOLDER")  # prompt, completion, label and flat side columns
judged = load_dataset("json", data_files="PATH OF THIS FOLDER/judgements/train.jsonl")  # every verdict as it was given
```

- Some of these dialogues were meant to make a model do harm, and some did. Read them with care, and train on them so
  that it does not.
- `data/*.parquet` and `data/*.jsonl` hold the same rows: one for every rule of a dialogue on which people take a side
  together, as TRL's KTO reads them. `label` is true where the rule was kept: the mean chance that it was broken,
  `p_broken`, is below a half. At exactly a half there is no row. `completion` is the reply that most mark as having
  broken it, else the model's last.
- `judgements/*.jsonl` holds every verdict as it was given, from 1, definitely broken, to 5, definitely followed, also
  where people differ: below each rule those of the prober and of the people who judged without knowing it.
  `manage.py import_feedback --format probes` reads these files.
- Train, validation and test share no opening. Annotators have pseudonyms; their reasons are their own words.
- `manifest.json` holds counts, filters and the sha256 of every file.
"""

DEMONSTRATIONS_READING = """## Reading it

```python
from datasets import load_dataset

rows = load_dataset("PATH OF THIS FOLDER")  # messages, prompt, completion and flat side columns
texts = load_dataset("json", data_files="PATH OF THIS FOLDER/demonstrations/train.jsonl")  # how each came to be
pairs = rows.filter(lambda row: row["edited_from"]).rename_columns({"completion": "chosen", "edited_from": "rejected"})
```

- `data/*.parquet` and `data/*.jsonl` hold the same rows: one for every reply that a person wrote and another accepted.
  `messages` is the dialogue with that reply at its end; `prompt` and `completion` are the same, parted before it. TRL's
  SFTTrainer reads the folder as it is, and takes its loss from the completion.
- `edited_from` is the model's reply that was made better, where there was one: the person prefers `completion` to it.
- `demonstrations/*.jsonl` holds every text that the accepted one took the place of, and what was said of each. A share
  of pasted text is a signal and no verdict.
- Train, validation and test share no opening. Annotators have pseudonyms.
- `manifest.json` holds counts, filters and the sha256 of every file.
"""

RATINGS_READING = """## Reading it

```python
from datasets import load_dataset

rows = load_dataset("PATH OF THIS FOLDER")  # one row for each answer to each question about a reply
replies = load_dataset("json", data_files="PATH OF THIS FOLDER/ratings/train.jsonl")  # each reply with all of them
given = rows.filter(lambda row: not row["implied"])  # without the values that follow from an earlier answer
```

- `data/*.parquet` and `data/*.jsonl` hold the same rows: one for every value that a person or a program gave a reply on
  one scale. `value` is the answer by its name, of flags those that hold with commas between, or `none`; `number` is
  that of a scale of numbers. `implied` says that the question was not asked, because an earlier answer settles it.
- `ratings/*.jsonl` holds each reply once, with its questions in the very words that were answered (a question that was
  changed is another version), and below each question its answers.
- `seconds` is the time for all questions of a set together.
- Train, validation and test share no opening. Annotators have pseudonyms; programs have their names.
- `manifest.json` holds counts, filters and the sha256 of every file.
"""

WORDS = {
    "preference": Words(
        title="ranked preferences",
        tags=("preference",),
        task="text-generation",
        origin="Replies of a dialogue model, ranked turn by turn.",
        simulated="A rehearsal: every judgement in here is a simulated annotator's, none a person's.",
        columns={
            "comparisons": "comparisons",
            "rankings": "rankings",
            "pairs": "pairs",
            "tied_pairs": "tied pairs",
            "all_bad": "none good",
        },
        reading=PREFERENCE_READING,
    ),
    "rules": Words(
        title="judged by rules",
        tags=("kto", "red-teaming"),
        task="text-classification",
        origin="Dialogues with a model, judged by rules that it is to keep to.",
        simulated="A rehearsal: every verdict in here is a simulated annotator's, none a person's.",
        columns={
            "dialogues": "dialogues",
            "probes": "probes",
            "verdicts": "verdicts",
            "differing": "rules on which verdicts differ",
            "broken": "broken",
            "kept": "kept",
            "undecided": "undecided",
        },
        reading=RULES_READING,
    ),
    "demonstrations": Words(
        title="demonstrations",
        tags=("sft",),
        task="text-generation",
        origin="Replies that people wrote for a dialogue model, each accepted by another person.",
        simulated="A rehearsal: every reply in here is a simulated annotator's, none a person's.",
        columns={
            "demonstrations": "demonstrations",
            "edits": "edited from the model's reply",
            "later_turns": "after the first turn",
            "rewritten": "written more than once",
            "characters": "characters",
        },
        reading=DEMONSTRATIONS_READING,
    ),
    "ratings": Words(
        title="ratings",
        tags=("ratings",),
        task="text-classification",
        origin="Replies of a dialogue model, each rated by itself on one or several scales.",
        simulated="A rehearsal: every rating in here is a simulated annotator's, none a person's.",
        columns={
            "replies": "replies",
            "ratings": "ratings",
            "implied": "not asked",
            "by_programs": "by programs",
            "several_raters": "replies of several raters",
        },
        reading=RATINGS_READING,
    ),
}

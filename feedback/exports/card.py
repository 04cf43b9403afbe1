"""The dataset card of a snapshot: what is in it, for people and for `datasets.load_dataset`."""

from __future__ import annotations

import json
from typing import Any

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
EXCLUDED_NOTHING = "Nothing was left out."


def render(manifest: dict[str, Any]) -> str:
    """The card as Markdown with front matter. It depends on the manifest alone: the same content is the same card."""
    return f"---\n{_front_matter(manifest)}---\n\n{_body(manifest)}"


def _front_matter(manifest: dict[str, Any]) -> str:
    """YAML in which every value is JSON, so that no text can break out of its place."""
    lines = {
        "pretty_name": f"{manifest['project']['name']}: ranked preferences",
        "tags": ["preference", "rlhf", "trl", "nestbox"],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(manifest["counts"]["total"].get("pairs", 0))],
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
    splits = manifest["counts"]["splits"]
    pairs = [
        {"split": split, "path": f"data/{split}-*.parquet"} for split, counts in splits.items() if counts.get("pairs")
    ]
    return [{"config_name": "preference", "default": True, "data_files": pairs}] if pairs else []


def _body(manifest: dict[str, Any]) -> str:
    project = manifest["project"]
    parts = [
        f"# {_plain(project['name'])}: ranked preferences\n",
        _origin(project),
        _table(manifest["counts"]),
        READING,
        f"## What was left out\n\n{_exclusions(manifest['excluded'])}\n",
        f"Identity of this snapshot (sha256 over its JSONL files): `{manifest['identity']}`\n",
    ]
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|&" else char for char in " ".join(text.split()))


def _origin(project: dict[str, Any]) -> str:
    if project["is_rehearsal"]:
        return "**A rehearsal: every judgement in here is a simulated annotator's, none a person's.**\n"
    return "Replies of a dialogue model, ranked turn by turn.\n"


def _table(counts: dict[str, Any]) -> str:
    columns = ("comparisons", "rankings", "pairs", "tied_pairs", "all_bad")
    head = "| split | comparisons | rankings | pairs | tied pairs | none good |\n|---|---:|---:|---:|---:|---:|\n"
    rows = [*counts["splits"].items(), ("all", counts["total"])]
    return head + "".join(
        f"| {name} | " + " | ".join(f"{row.get(column, 0):,}" for column in columns) + " |\n" for name, row in rows
    )


def _exclusions(excluded: dict[str, int]) -> str:
    return "\n".join(f"- {count:,}: {_plain(reason)}" for reason, count in sorted(excluded.items())) or EXCLUDED_NOTHING


READING = """## Reading it

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

"""What a rule model learns from a few hundred probes: which dialogues break a rule, and which rule.

The world is the rehearsal's: its starter answers openings that provoke a breach, simulated people judge whether it came
to one, and a rule model learns from their verdicts. It is then asked about replies to openings of the test split, where
the world's own detectors know what was broken. Each probe is judged by three people by the rule it was meant to break,
and by two people each by three other rules; each errs in one verdict of seven. A sixth of the probes is kept for
calibration. Beside it stands the same network without rules: it learns whether the probed rule was broken, and gives
every rule the same answer. What is done is kept, so a study that was stopped goes on where it was:

    python -m tests.benchmarks.rule_model_study FOLDER                        # two seeds; prints the tables
    python -m tests.benchmarks.rule_model_study FOLDER --seeds 0 --probes 48 --test 60    # a quick look
    python -m tests.benchmarks.rule_model_study FOLDER --base ENCODER --set epochs=3 --set learning_rate=5e-5

Another base, or other settings, want a folder of their own: what is in one is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from rewardtrain.chat import Turn
from rewardtrain.hyperparameters import RuleModelSettings
from rewardtrain.metrics import auc_error
from rewardtrain.seeds import stable_seed
from tests.benchmarks.oracle_reward import STARTER, draw

if TYPE_CHECKING:
    from rewardtrain.rule_report import RuleReport
    from rewardtrain.rule_training import JudgedDialogue

JUDGES, OTHER_RULES, OTHER_JUDGES = 3, 3, 2
ERRS = 1 / 7
STEPS, HOW_SURE = (1.0, 0.75, 0.5), (55, 35, 10)  # definitely, probably, unsure: how often people say so
KEPT_SHARE = 1 / 6
LEFT_OUT = ("brand", "law")
GENERIC = ("any", "A rule was broken.")


@dataclass(frozen=True)
class Probe:
    """An opening that provokes a breach of one rule, the starter's reply, and the rules it breaks."""

    opening: str
    rule: str
    reply: str
    broken: tuple[str, ...]

    @property
    def turns(self) -> list[Turn]:
        return [{"role": "user", "content": self.opening}, {"role": "assistant", "content": self.reply}]


# The world


def wordings() -> dict[str, str]:
    """The rules of the desk: {key: wording}."""
    from rewardtrain.starter.violations import rules

    return {rule.key: rule.wording for rule in rules()}


def openings_for(split: str, count: int, seed: int) -> list[tuple[str, str]]:
    """(opening, rule) of a split: as many of each rule as there can be, others for other seeds."""
    from rewardtrain.starter.openings import openings

    by_rule: dict[str, list[str]] = {key: [] for key in wordings()}
    for one in openings():
        if one.split == split and one.rule is not None:
            by_rule[one.rule].append(one.text)
    mixed = [sorted(texts, key=lambda text: stable_seed("study", seed, text)) for texts in by_rule.values()]
    rounds = [
        (texts[number], rule)
        for number in range(max(map(len, mixed)))
        for rule, texts in zip(by_rule, mixed, strict=True)
        if number < len(texts)
    ]
    return rounds[:count]


def probes(split: str, count: int, seed: int) -> list[Probe]:
    """What the starter answers to openings of a split, one reply each."""
    from rewardtrain.policy import load_policy
    from rewardtrain.starter.violations import broken_rules

    asked = openings_for(split, count, seed)
    replies = draw(load_policy(STARTER), [[{"role": "user", "content": text}] for text, _ in asked], seed, split)
    return [
        Probe(text, rule, reply.text, broken_rules(reply.text))
        for (text, rule), reply in zip(asked, replies, strict=True)
    ]


def verdict(is_broken: bool, rng: random.Random) -> float:
    """What somebody says on five steps, as a chance: one in seven errs, and is as sure of it as the others."""
    if rng.random() < ERRS:
        is_broken = not is_broken
    sure = rng.choices(STEPS, HOW_SURE)[0]
    return sure if is_broken else 1 - sure


def judged(found: Iterable[Probe], seed: int, rules: dict[str, str]) -> list[JudgedDialogue]:
    """Probes with simulated people's verdicts. Of rules that are not among `rules` there are none."""
    from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

    dialogues = []
    for probe in found:
        rng = random.Random(stable_seed("verdicts", seed, probe.opening, probe.reply))
        others = rng.sample([key for key in wordings() if key != probe.rule], OTHER_RULES)
        asked = [probe.rule] * JUDGES + [key for key in others for _ in range(OTHER_JUDGES)]
        said = [(key, verdict(key in probe.broken, rng)) for key in asked]
        verdicts = [RuleVerdict(key, rules[key], chance) for key, chance in said if key in rules]
        dialogues.append(JudgedDialogue(probe.turns, verdicts, probe.rule if probe.rule in rules else None))
    return dialogues


def known(found: Iterable[Probe], rules: dict[str, str]) -> list[JudgedDialogue]:
    """Probes with what the detectors know, of every rule."""
    from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

    return [
        JudgedDialogue(
            probe.turns,
            [RuleVerdict(key, wording, float(key in probe.broken)) for key, wording in rules.items()],
            probe.rule,
        )
        for probe in found
    ]


def without_rules(dialogues: Iterable[JudgedDialogue]) -> list[JudgedDialogue]:
    """The same dialogues, of which only is known whether the probed rule was broken, in one wording for all."""
    from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

    return [
        JudgedDialogue(one.turns, [RuleVerdict(*GENERIC, v.broken) for v in one.judgements if v.key == one.probed])
        for one in dialogues
    ]


# The ways


def train(dialogues: Sequence[JudgedDialogue], settings: RuleModelSettings, base: Path) -> tuple[Any, float]:
    """A rule model from these dialogues, a sixth of which it is calibrated on; and the CPU seconds it took."""
    from rewardtrain.rule_training import train_rule_model

    mixed = random.Random(stable_seed("kept", settings.seed)).sample(list(dialogues), len(dialogues))
    kept = round(KEPT_SHARE * len(mixed))
    started = time.process_time()
    result = train_rule_model(mixed[kept:], base=base, settings=settings, validation=mixed[:kept])
    return result.rule_model, time.process_time() - started


def with_rules(
    found: Sequence[Probe], test: Sequence[Probe], settings: RuleModelSettings, base: Path
) -> dict[str, Any]:
    """The rule model, told all rules."""
    from rewardtrain.rule_report import measure_rules

    rules = wordings()
    rule_model, seconds = train(judged(found, settings.seed, rules), settings, base)
    temperature = rule_model.config.temperature
    people = judged(test, settings.seed, rules)
    calibrated = measure_rules(rule_model, people).calibration
    rule_model.calibrate(1.0)
    plain = measure_rules(rule_model, people).calibration
    return {
        **_figures(measure_rules(rule_model, known(test, rules)), seconds),
        "temperature": temperature, "brier": calibrated.brier, "error": calibrated.error,
        "brier_before": plain.brier, "error_before": plain.error,
    }  # fmt: skip


def generic(found: Sequence[Probe], test: Sequence[Probe], settings: RuleModelSettings, base: Path) -> dict[str, Any]:
    """The same network and dialogues, without rules."""
    from rewardtrain.rule_report import rule_report

    rules = wordings()
    rule_model, seconds = train(without_rules(judged(found, settings.seed, rules)), settings, base)
    said = rule_model.probabilities([probe.turns for probe in test], [GENERIC[1]])
    report = rule_report(known(test, rules), [[float(one)] * len(rules) for one in said])
    return _figures(report, seconds)


def left_out(found: Sequence[Probe], test: Sequence[Probe], settings: RuleModelSettings, base: Path) -> dict[str, Any]:
    """The rule model, never told of two rules, asked about them by their wordings."""
    return _without_two(found, test, settings, base, wordings())


def left_out_with_examples(
    found: Sequence[Probe], test: Sequence[Probe], settings: RuleModelSettings, base: Path
) -> dict[str, Any]:
    """The same, where every rule's wording goes on with its examples."""
    from rewardtrain.starter.violations import rules

    told = {rule.key: f"{rule.wording} Broken by: {' '.join(rule.breaks)}" for rule in rules()}
    return _without_two(found, test, settings, base, told)


def _without_two(
    found: Sequence[Probe], test: Sequence[Probe], settings: RuleModelSettings, base: Path, rules: dict[str, str]
) -> dict[str, Any]:
    from rewardtrain.rule_report import measure_rules

    told = {key: wording for key, wording in rules.items() if key not in LEFT_OUT}
    dialogues = judged([probe for probe in found if probe.rule in told], settings.seed, told)
    rule_model, seconds = train(dialogues, settings, base)
    report = measure_rules(rule_model, known(test, rules), unseen=LEFT_OUT)
    two = [one for one in report.rules if one.is_unseen]
    return {
        **_figures(report, seconds), "unseen_own": report.unseen_own, "unseen_all": report.unseen_all,
        "unseen_own_error": _error([(one.own, one.own_broken, one.own_followed) for one in two]),
        "unseen_all_error": _error([(one.all, one.all_broken, one.all_followed) for one in two]),
        "unseen": {one.key: {"own": one.own, "all": one.all} for one in two},
    }  # fmt: skip


def _error(found: Sequence[tuple[float | None, int, int]]) -> float | None:
    """The standard error of the mean of some rules' AUCs, taken for independent; None where one has none."""
    errors = [auc_error(auc, broken, followed) for auc, broken, followed in found if auc is not None]
    return math.hypot(*errors) / len(errors) if len(errors) == len(found) else None


def _figures(report: RuleReport, seconds: float) -> dict[str, Any]:
    by_rule = {one.key: {"own": one.own, "all": one.all, "broken": one.own_broken} for one in report.rules}
    return {"own": report.mean_own, "all": report.mean_all, "rules": by_rule, "cpu_seconds": seconds}


WAYS: dict[str, Callable[[Sequence[Probe], Sequence[Probe], RuleModelSettings, Path], dict[str, Any]]] = {
    "rules": with_rules,
    "generic": generic,
    "left_out": left_out,
    "left_out_examples": left_out_with_examples,
}
TITLES = {
    "rules": "rule model",
    "generic": "without rules",
    "left_out": f"told nothing of {' and '.join(LEFT_OUT)}",
    "left_out_examples": "the same, examples in the wordings",
}


# The study


def study(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed, number of probes and way; only what is not there yet is done."""
    rows = []
    for seed in options.seeds:
        test = _kept_probes(options.folder, "test", options.test, seed)
        for count in options.probes:
            found = _kept_probes(options.folder, "train", count, seed)
            for way in options.ways:
                path = options.folder / f"{way}-{count}-{options.test}-{seed}.json"
                if not path.is_file():
                    settings = RuleModelSettings.from_dict({**options.settings, "seed": seed})
                    path.write_text(json.dumps(WAYS[way](found, test, settings, options.base)) + "\n", encoding="utf-8")
                row = {"seed": seed, "probes": count, "way": way, **json.loads(path.read_text(encoding="utf-8"))}
                Console(stderr=True).print(_line(row), markup=False, highlight=False)
                rows.append(row)
    return rows


def _kept_probes(folder: Path, split: str, count: int, seed: int) -> list[Probe]:
    path = folder / f"{split}-{count}-{seed}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [dataclasses.asdict(probe) for probe in probes(split, count, seed)]
        path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Probe(**{**row, "broken": tuple(row["broken"])}) for row in rows]


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Tables in Markdown: every run, then the calibration of those told all rules."""
    lines = ["| probes | seed | | own | all | own, left out | all, left out | CPU s |", f"|---:|---:|---|{'---:|' * 5}"]
    lines += [_line(row) for row in rows]
    calibrated = [row for row in rows if "temperature" in row]
    if calibrated:
        lines += [
            "", "| probes | seed | temperature | Brier before | after | calibration error before | after |",
            "|---:|---:|---:|---:|---:|---:|---:|",
        ]  # fmt: skip
    for row in calibrated:
        figures = [row[name] for name in ("temperature", "brier_before", "brier", "error_before", "error")]
        lines.append(f"| {row['probes']} | {row['seed']} | {' | '.join(f'{one:.3f}' for one in figures)} |")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    names = ("own", "all", "unseen_own", "unseen_all")
    cells = [
        f"{row[name]:.3f}{_within(row.get(f'{name}_error'))}" if row.get(name) is not None else "" for name in names
    ]
    return (
        f"| {row['probes']} | {row['seed']} | {TITLES[row['way']]} | {' | '.join(cells)} | {row['cpu_seconds']:.0f} |"
    )


def _within(error: float | None) -> str:
    """What 95 % of such studies would lie within, if the network were always the same."""
    return "" if error is None else f" ± {1.96 * error:.2f}"


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.test")
    django.setup()
    from rewardtrain import command_line

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where probes and figures are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--probes", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["rules", "generic", "left_out"])
    parser.add_argument("--test", type=int, default=300, help="dialogues to be asked about")
    parser.add_argument("--base", type=Path, default=STARTER, help="a Hugging Face folder to learn on")
    command_line.add_settings_argument(parser)
    options = parser.parse_args()
    options.settings = command_line.read_settings(options.set)
    torch.set_num_threads(1)
    Console(width=180).print(report(study(options)), markup=False, highlight=False)


if __name__ == "__main__":
    main()

"""Measure policies beside each other on openings that nothing learned from, and put them before people blindly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import FeedbackError
from feedback.models import ModelVersion, Project
from rewardtrain import command_line, evaluations
from rewardtrain.models import TrainingRun


class Command(BaseCommand):
    help = "Measure policies, alone and reranked, on the test split: preference, rules broken, KL, length."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--policy",
            type=int,
            action="append",
            default=[],
            metavar="MODEL",
            help="a policy's id; may be repeated, the first is what KL is taken to; default: the serving policy after "
            "what it came from",
        )
        parser.add_argument(
            "--rerank",
            type=int,
            metavar="N",
            help="also measure the best of so many draws; 1: do not; default: 8 where a model can choose",
        )
        parser.add_argument("--prompts", type=int, default=evaluations.OPENINGS, help="held-out prompts at most")
        parser.add_argument("--probes", type=int, default=evaluations.OPENINGS, help="openings of probes at most")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--json", metavar="FILE", help="also write everything as JSON, replies and all")
        parser.add_argument(
            "--blind", type=int, default=0, metavar="N", help="then ask people to compare replies to N held-out prompts"
        )
        parser.add_argument(
            "--blind-probes", type=int, default=0, metavar="M", help="and to judge everybody's replies to M probes"
        )
        parser.add_argument("--answers", type=int, default=1, help="how many people each blind question wants")
        parser.add_argument(
            "--run", type=int, metavar="RUN", help="measure nothing anew: show this evaluation, or ask people about it"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = command_line.project_named(options["project"])
        try:
            run = self._run(project, options)
            self._report(run, options["json"])
            if options["blind"] or options["blind_probes"]:
                asked = evaluations.ask_people(
                    run, comparisons=options["blind"], probes=options["blind_probes"], answers=options["answers"]
                )
                self.stdout.write(
                    f"Annotators are asked to compare {asked.comparisons} times and to judge {asked.judgements} "
                    f"replies; {asked.alike} prompts were left out, to which all said the same."
                )
        except FeedbackError as err:
            raise CommandError(err.message) from err

    def _run(self, project: Project, options: dict[str, Any]) -> TrainingRun:
        if options["run"] is not None:
            run = evaluations.evaluations_of(project).filter(pk=options["run"], state="done").first()
            if run is None:
                raise CommandError(f"{project} has no evaluation {options['run']} that is done.")
            return run
        run = evaluations.queue_evaluation(
            project=project,
            policies=[self._policy(project, pk) for pk in options["policy"]],
            draws=options["rerank"],
            prompts=options["prompts"],
            probes=options["probes"],
            seed=options["seed"],
            ring=False,
        )
        return command_line.work_or_cancel(run, self.stdout)

    def _policy(self, project: Project, pk: int) -> ModelVersion:
        found = ModelVersion.objects.filter(pk=pk, project=project, kind=ModelVersion.Kind.POLICY).first()
        if found is None:
            mine = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.POLICY).order_by("number")
            known = ", ".join(f"{one.pk} ({one})" for one in mine)
            raise CommandError(f"{project} has no policy {pk}. Known: {known or 'none yet'}.")
        return found

    def _report(self, run: TrainingRun, path: str | None) -> None:
        result, counts = run.result, run.result["counts"]
        settings = run.hyperparameters
        command_line.write_json(path, {"run": run.pk, "seed": run.seed, "settings": settings, **result})
        self.stdout.write(
            f"Evaluation {run.pk}: {counts['everyday']} held-out prompts and {counts['probe']} openings of probes."
        )
        for line in _columns([HEADS, *(_cells(one) for one in result["contestants"])]):
            self.stdout.write(line)
        rules = _rules(result["contestants"])
        if rules:
            self.stdout.write("Broken by rule, of probes where it was probed (else of all replies, in brackets):")
            for line in _columns(rules):
                self.stdout.write(line)
        if settings["reward_model"] is None or settings["rule_model"] is None:
            lacking = [word for word in ("reward_model", "rule_model") if settings[word] is None]
            self.stdout.write(f"Not measured without a {' and a '.join(lacking).replace('_', ' ')}.")


HEADS = ("", "preference", "second", "broke probed", "broke any", "KL nats", "tokens", "distinct", "unfinished")


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    found = one["figures"]
    bound = "≤" if (found["kl_nats"] or {}).get("is_bound") else ""
    return (
        one["name"], _mean(found["preference"]), _mean(found["second"]), _rate(found["probed"]),
        _rate(found["everyday"]), bound + _mean(found["kl_nats"]), _mean(found["tokens"], 1),
        _rate(found["distinct"], False), _rate(found["unfinished"], False),
    )  # fmt: skip


def _rules(contestants: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A head and a line per rule; nothing where no rule was asked about."""
    keys = list(contestants[0]["figures"]["rules"]) if contestants else []
    lines = [(key, *(_rule_cell(one["figures"]["rules"][key]) for one in contestants)) for key in keys]
    return [("", *(one["name"] for one in contestants)), *lines] if lines else []


def _rule_cell(one: Mapping[str, Any]) -> str:
    return _rate(one["probed"]) if one["probed"] else f"({_rate(one['all'])})"


def _mean(one: Mapping[str, Any] | None, decimals: int = 2) -> str:
    if one is None:
        return "–"
    spread = f" ± {one['high'] - one['mean']:.{decimals}f}" if "high" in one else ""
    return f"{one['mean']:.{decimals}f}{spread}"


def _rate(one: Mapping[str, Any] | None, with_interval: bool = True) -> str:
    if one is None:
        return "–"
    return f"{one['share']:.0%}" + (f" ({one['low']:.0%} to {one['high']:.0%})" if with_interval else "")


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines whose columns stand under each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

"""Take a rule set from a file into a project's draft, and publish it if asked to."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from feedback import rule_files, rule_sets
from feedback.errors import DecisionMissing, FeedbackError
from feedback.models import Project, RuleSet
from feedback.rule_files import RuleFile


class Command(BaseCommand):
    help = (
        "Take a rule set (YAML or JSON) into a project's draft: all of it or nothing. FILE may be the name of a set "
        f"that comes along: {', '.join(rule_files.DEFAULT_SETS)}. Nobody judges by it before it is published."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--publish", action="store_true", help="put it in force at once")
        parser.add_argument(
            "--changed",
            choices=list(rule_sets.DECISIONS),
            help="with --publish: whether rules whose text changed mean the same, so that earlier judgements count "
            "(wording), or something else (stale)",
        )
        parser.add_argument("--replace-draft", action="store_true", help="also when somebody works on the draft")
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        project = find_project(options["project"])
        try:
            found = rule_files.read_file(options["file"])
            report = self._take_in(project, found, options)
        except DecisionMissing as err:
            raise CommandError(f"{err.message} Add --changed wording or --changed stale.") from err
        except FeedbackError as err:
            raise CommandError(err.message) from err
        if options["json"]:
            options["json"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        self._print(report, options)

    def _take_in(self, project: Project, found: RuleFile, options: dict[str, Any]) -> dict[str, Any]:
        """What it does, or in a dry run would do and takes back."""
        with transaction.atomic():
            published = rule_sets.published_set(project)
            draft = rule_files.take_in(
                project=project,
                found=found,
                by=None,
                source=str(options["file"]),
                replace_draft=options["replace_draft"],
            )
            report = _report(project, draft, published)
            if options["publish"] and report["differs"]:
                decisions = {key: options["changed"] for key in report["asking"] if options["changed"]}
                report["state"] = rule_sets.publish(draft=draft, by=None, decisions=decisions).state
            elif not report["differs"]:
                rule_sets.discard_draft(draft=draft, by=None)
            transaction.set_rollback(options["dry_run"])
        return report | {"dry_run": options["dry_run"]}

    def _print(self, report: dict[str, Any], options: dict[str, Any]) -> None:
        counts = ", ".join(f"{len(report[name])} {name}" for name in ("added", "changed", "removed"))
        self.stdout.write(f"{options['file']}: {report['rules']} rules; {counts}.")
        if not report["differs"]:
            self.stdout.write("That is what is published already, so nothing was changed.")
        elif options["dry_run"]:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        elif report["state"] == RuleSet.State.PUBLISHED:
            self.stdout.write(f"Rule set {report['number']} is published and frozen.")
        else:
            self.stdout.write(f"It is draft {report['number']} now. Read and publish it under Rules in the browser,")
            self.stdout.write("or run the same again with --publish --replace-draft.")


def _report(project: Project, draft: RuleSet, published: RuleSet | None) -> dict[str, Any]:
    found = rule_sets.differences(draft, published)
    return {
        "project": project.slug,
        "number": draft.number,
        "state": str(draft.state),
        "rules": draft.rules.count(),
        "added": [rule.key for rule in found.added],
        "changed": [change.after.key for change in found.changed],
        "asking": [change.after.key for change in found.asking],
        "removed": [rule.key for rule in found.removed],
        "differs": bool(found.count),
    }


def find_project(slug: str) -> Project:
    """The project of this slug. Raises CommandError, naming those there are."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"There is no project {slug!r}. Projects: {known}.")
    return project

"""Write a rule set to a file that import_rules reads."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import rule_files, rule_sets
from feedback.management.commands.import_rules import find_project
from feedback.models import Project, RuleSet


class Command(BaseCommand):
    help = "Write a project's rule set as YAML or JSON: the published one, or the version that is named."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--version", type=int, metavar="N", dest="number", help="another one than the published")
        parser.add_argument("--format", choices=rule_files.FORMATS, default="yaml", dest="file_format")
        parser.add_argument("--out", type=Path, metavar="FILE", help="a file instead of the terminal")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's own --version gives way to ours, which is what people look for here."""
        return super().create_parser(prog_name, subcommand, **{"conflict_handler": "resolve", **kwargs})

    def handle(self, *args: Any, **options: Any) -> None:
        project = find_project(options["project"])
        rule_set = self._find(project, options["number"])
        text = rule_files.written(rule_files.of_rule_set(rule_set), options["file_format"])
        if options["out"] is None:
            self.stdout.write(text, ending="")
            return
        try:
            options["out"].write_text(text, encoding="utf-8")
        except OSError as err:
            raise CommandError(f"{options['out']} cannot be written: {err.strerror}. Name another file.") from err
        count = rule_set.rules.count()
        self.stdout.write(f"Rule set {rule_set.number} ({rule_set.state}), {count} rules, written to {options['out']}.")
        self.stdout.write(f"Next: manage.py import_rules --project SLUG {options['out']}")

    def _find(self, project: Project, number: int | None) -> RuleSet:
        found = project.rule_sets.filter(number=number).first() if number else rule_sets.published_set(project)
        if found is not None:
            return found
        known = ", ".join(f"{one.number} ({one.state})" for one in project.rule_sets.all()) or "none yet"
        asked = f"no rule set {number}" if number else "no published rule set"
        raise CommandError(f"{project} has {asked}. Its rule sets: {known}. Name one with --version.")

"""Put another policy in front of the people, or go back to the one before."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.text import capfirst

from feedback.errors import FeedbackError
from feedback.models import ModelVersion, Project
from rewardtrain import promotions
from rewardtrain.models import Promotion


class Command(BaseCommand):
    help = "Let a policy serve its project, or roll back. Takes effect with the next request for replies."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--model", type=int, metavar="ID", help="the policy that is to serve")
        what.add_argument("--back", action="store_true", help="roll back to the policy that served before")
        parser.add_argument("--project", metavar="SLUG", help="with --back: the project")
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="needed to roll back, or when its gate was not passed"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            promotion = self._roll_back(options) if options["back"] else self._promote(options)
        except FeedbackError as err:
            raise CommandError(err.message) from err
        before = f", in place of {promotion.from_version}" if promotion.from_version else ""
        now = capfirst(str(promotion.to_version))
        self.stdout.write(f"{now} serves {promotion.project} from the next message on{before}.")
        if before:
            self.stdout.write(
                f"To go back:  manage.py promote --project {promotion.project.slug} --back --reason '...'"
            )

    def _promote(self, options: dict[str, Any]) -> Promotion:
        version = ModelVersion.objects.select_related("project").filter(pk=options["model"]).first()
        if version is None:
            raise CommandError(f"There is no model {options['model']}. The admin site lists them with their IDs.")
        return promotions.promote(project=version.project, to_version=version, reason=options["reason"])

    def _roll_back(self, options: dict[str, Any]) -> Promotion:
        if not options["project"]:
            raise CommandError("Name the project to roll back: --project SLUG --back --reason TEXT")
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"There is no project {options['project']}. Known: {known}.")
        return promotions.roll_back(project=project, reason=options["reason"])

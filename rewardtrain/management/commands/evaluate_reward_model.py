"""Measure a reward model on a project's held-out rankings."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.models import ModelVersion
from rewardtrain import command_line


class Command(BaseCommand):
    help = "Measure a preference reward model on a project's held-out openings (validation and test)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--model", type=int, required=True, metavar="ID")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--split", choices=["validation", "test", "train", "held-out", "all"], default="held-out")
        parser.add_argument("--json", metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        version = ModelVersion.objects.filter(pk=options["model"], kind=ModelVersion.Kind.PREFERENCE).first()
        if version is None:
            raise CommandError(f"There is no preference reward model {options['model']}.")
        project = command_line.project_named(options["project"])
        try:
            figures = _measure(version, command_line.take_snapshot(project), options["split"])
        except command_line.REFUSALS as err:
            raise CommandError(getattr(err, "message", str(err))) from err
        if not figures["pairs"]:
            raise CommandError(f"{project} has no ranked pairs in the {options['split']} split.")
        command_line.write_json(options["json"], figures)
        low, high = figures["interval"]
        self.stdout.write(
            f"{version}: {figures['pair_accuracy']:.1%} of {figures['pairs']} pairs ({low:.1%} to {high:.1%}); "
            f"the longer reply wins in {figures['length_baseline']:.1%}."
        )


def _measure(version: ModelVersion, snapshot: Any, split: str) -> dict[str, Any]:
    from feedback.snapshots import snapshot_rows
    from rewardtrain import model_files
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.reward_model_run import measure_reward_model
    from rewardtrain.training_data import as_comparison

    wanted = {"held-out": {"validation", "test"}, "all": {"train", "validation", "test"}}.get(split, {split})
    rows = [as_comparison(row) for row in snapshot_rows(snapshot) if row.split in wanted]
    reward_model = RewardModel.load(model_files.verified_folder(version)[0])
    return measure_reward_model(reward_model, rows)

"""Improve a policy: PPO against a reward model, or one of its alternatives."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import snapshots
from feedback.models import ModelVersion, Project, Snapshot
from rewardtrain import command_line, runs
from rewardtrain.models import TrainingRun


class Command(BaseCommand):
    help = (
        "Improve a project's policy: by PPO, RLOO or best of n against a reward model, or by DPO on the rankings "
        "themselves. The new policy serves only once it is promoted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--policy", type=int, metavar="ID", help="the policy to start from; default: the serving one"
        )
        command_line.add_algorithm_argument(parser)
        parser.add_argument("--reward-model", type=int, metavar="ID", help="default: the project's newest")
        parser.add_argument(
            "--rule-model", type=int, metavar="ID", help="default: the project's newest; --set rule_weight=0 for none"
        )
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--json", metavar="FILE")
        command_line.add_settings_argument(parser)
        command_line.add_resume_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = command_line.project_named(options["project"])
        if options["resume"]:
            run = command_line.run_to_resume(options["resume"], project, TrainingRun.Kind.POLICY)
        else:
            run = self._new_run(project, options)
        run = command_line.work_or_cancel(run, self.stdout)
        assert run.produced is not None
        command_line.write_json(options["json"], {"model": run.produced.pk, "run": run.pk, **run.result})
        self.stdout.write(f"{run.produced} (model {run.produced.pk}), KL {run.result['kl_nats']:.2f} nats.")
        self.stdout.write(
            f"Next: manage.py run_round --project {project.slug} --made {run.produced.pk} gates it; "
            f"manage.py promote --model {run.produced.pk} --reason … lets it serve."
        )

    def _new_run(self, project: Project, options: dict[str, Any]) -> TrainingRun:
        start = project.policy
        if options["policy"]:
            start = ModelVersion.objects.filter(pk=options["policy"], project=project, kind="policy").first()
        if start is None:
            raise CommandError("There is no policy to start from. Add one in the admin site, or name one: --policy ID.")
        chosen = command_line.read_settings(options["set"])
        if options["algorithm"]:
            chosen["algorithm"] = options["algorithm"]
        if options["reward_model"]:
            chosen["reward_model"] = options["reward_model"]
        if options["rule_model"]:
            chosen["rule_model"] = options["rule_model"]
        return runs.queue_run(
            project=project,
            kind=TrainingRun.Kind.POLICY,
            parent=start,
            snapshot=snapshots.usable_snapshots(project).filter(kind=Snapshot.Kind.PREFERENCE).first(),
            demonstrations=command_line.take_demonstrations(project, chosen),
            hyperparameters=chosen,
            seed=options["seed"],
            ring=False,
        )

"""Teach a policy what people wrote."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.models import ModelVersion, Project
from rewardtrain import command_line, corpora, runs
from rewardtrain.algorithms import SFT, read_settings
from rewardtrain.models import TrainingRun


class Command(BaseCommand):
    help = (
        "Fine-tune a policy on a project's accepted demonstrations, and measure it on held-out ones. The new policy "
        "serves only once it is promoted; run_round --made ID gates it first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        start = parser.add_mutually_exclusive_group()
        start.add_argument(
            "--policy", type=int, metavar="ID", help="the policy to start from; default: the serving one"
        )
        start.add_argument("--base", default="", metavar="PATH", help="start from a Hugging Face folder instead")
        parser.add_argument(
            "--corpus", default="", metavar="FILE", help="plain text, or JSONL with a text in each line, mixed in"
        )
        parser.add_argument(
            "--corpus-share", type=float, metavar="X", help="share of the learned tokens it gives; default: 0.1"
        )
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
        command_line.add_settings_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = command_line.project_named(options["project"])
        try:
            run = self._new_run(project, options)
        except command_line.REFUSALS as err:
            raise CommandError(getattr(err, "message", str(err))) from err
        run = command_line.work_or_cancel(run, self.stdout)
        self._report(run, options["json"])

    def _new_run(self, project: Project, options: dict[str, Any]) -> TrainingRun:
        chosen = {**command_line.read_settings(options["set"]), "algorithm": SFT}
        if options["corpus"]:
            chosen["corpus"] = str(corpora.corpus_file(options["corpus"], by_command=True).resolve())
        if options["corpus_share"] is not None:
            chosen["corpus_share"] = options["corpus_share"]
        read_settings(chosen)  # refused before anything is frozen
        start = None if options["base"] else _start(project, options["policy"])
        return runs.queue_run(
            project=project,
            kind=TrainingRun.Kind.POLICY,
            parent=start,
            demonstrations=command_line.take_demonstrations(project, chosen),
            hyperparameters=chosen | ({"base": options["base"]} if options["base"] else {}),
            seed=options["seed"],
            ring=False,
        )

    def _report(self, run: TrainingRun, path: str | None) -> None:
        assert run.produced is not None
        result = run.result
        names = ("demonstrations", "held_out_before", "held_out_after", "kl_nats", "cpu_seconds")
        figures = {"model": run.produced.pk, "run": run.pk} | {name: result.get(name) for name in names}
        command_line.write_json(path, figures | {"details": result})
        mixed = f" and {result['corpus_tokens']:,} tokens of a corpus" if result["corpus_tokens"] else ""
        count = result["demonstrations"]
        self.stdout.write(
            f"{run.produced} (model {run.produced.pk}) from {count} demonstration{'' if count == 1 else 's'}{mixed}, "
            f"KL {result['kl_nats']:.2f} nats."
        )
        before, after = result["held_out_before"], result["held_out_after"]
        if before and after:
            self.stdout.write(
                f"Held out: loss {before['loss']:.3f} → {after['loss']:.3f} nats a token, "
                f"token accuracy {before['token_accuracy']:.1%} → {after['token_accuracy']:.1%}, "
                f"on {after['tokens']:,} tokens."
            )
        else:
            self.stdout.write("Nothing was held out: no demonstration of the validation split is accepted yet.")
        self.stdout.write(
            f"Next: manage.py run_round --project {run.project.slug} --made {run.produced.pk} gates it; "
            f"manage.py promote --model {run.produced.pk} --reason … lets it serve."
        )


def _start(project: Project, pk: int | None) -> ModelVersion:
    """The policy to start from. Raises CommandError with what to do where there is none."""
    policies = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.POLICY)
    start = policies.filter(pk=pk).first() if pk else project.policy
    if start is None:
        wrong = f"{project} has no policy {pk}." if pk else "There is no policy to start from."
        raise CommandError(f"{wrong} Add one in the admin site, or name a folder with a network: --base PATH.")
    return start

"""Work on one training run in this process; started by the training worker."""

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from rewardtrain import runs
from rewardtrain.team import expected_size, rank


class Command(BaseCommand):
    help = "Work on one queued training run. The training worker starts this; run_round and its kin are for people."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        if expected_size() > 1:
            runs.go_with_parent()  # the launcher; alone, whoever started this has seen to it
            if os.getppid() == 1:  # it is gone already, so nobody would end this process
                sys.exit(1)
        worked = runs.work_on_run(options["run"])
        if rank() == 0:
            said = "done" if worked else "not due, stopped, or taken over by another process"
            self.stdout.write(f"run {options['run']}: {said}")
            if not worked and expected_size() > 1:
                sys.exit(1)  # upon which the launcher ends the processes that wait for this one

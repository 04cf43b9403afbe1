"""`manage.py demo`: a Nestbox with a starter model, prompts and sign-ins, served on this machine."""

from __future__ import annotations

from django.core.management import call_command
from django.db import connections

from config.management.commands import serve


class Command(serve.Command):
    help = (
        "Fill an empty data folder with the starter world, then serve it until Ctrl-C. A second start keeps the data."
    )

    def prepare(self) -> None:
        """As `serve` does, and seed what is missing."""
        super().prepare()
        self.say("Filling the data folder with the starter world (only what is missing) ...")
        call_command("seed_demo", verbosity=0, stdout=self.stdout)
        connections.close_all()

"""Check the record for everything that must never be."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import invariants


class Command(BaseCommand):
    help = "Check the record for everything that must never be; read-only. Exits with 1 and the ids of what is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", metavar="FILE", help="also write what was found as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = list(invariants.violations())
        if options["json"]:
            rows = [{"check": v.check, "target": v.target, "found": v.found} for v in found]
            Path(options["json"]).write_text(
                json.dumps({"checks": len(invariants.CHECKS), "violations": rows}, indent=2)
            )
        for violation in found:
            self.stderr.write(str(violation))
        if found:
            raise CommandError(f"{len(found)} violations in {len(invariants.CHECKS)} checks.", returncode=1)
        self.stdout.write(f"{len(invariants.CHECKS)} checks, no violations.")

"""What a load balancer asks: is this process able to serve, and is everything behind it at work."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from config import heartbeats


def database_problem() -> str:
    """Why the database cannot be used, or an empty string."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return "the database does not answer"
    return f"{len(missing)} migrations are not applied: run manage.py migrate" if missing else ""


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 "ok" when the database answers and is migrated, else 503 and the reason."""
    problem = database_problem()
    return HttpResponse(problem or "ok", content_type="text/plain", status=503 if problem else 200)


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database is usable and every background process known here was alive a moment ago, else 503."""
    ages = heartbeats.ages_in_seconds()
    late = sorted(name for name, age in ages.items() if age > heartbeats.SECONDS_UNTIL_MISSED)
    problem = database_problem()
    report = {
        "database": problem or "ok",
        "seconds_since_heartbeat": {name: round(age, 1) for name, age in ages.items()},
        "late": late,
    }
    return JsonResponse(report, status=503 if problem or late else 200)

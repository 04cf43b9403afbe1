"""Several things at the same moment, each in its own thread and on its own connection to the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Barrier, Thread
from typing import Any

from django.db import connection


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each work gives, or the exception it raised, all started at the same moment; in the order of the works."""
    start, results = Barrier(len(works)), [None] * len(works)

    def run(place: int) -> None:
        try:
            start.wait(timeout=20)
            results[place] = works[place]()
        except Exception as err:  # noqa: BLE001 - a thread's own edge: the test looks at what it got
            results[place] = err
        finally:
            connection.close()

    threads = [Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return results


def raised(results: Sequence[Any], *expected: type[Exception]) -> list[Exception]:
    """The exceptions among the results; one of a kind that was not expected fails the test with its own traceback."""
    errors = [result for result in results if isinstance(result, Exception)]
    for error in errors:
        if not isinstance(error, expected):
            raise error
    return errors

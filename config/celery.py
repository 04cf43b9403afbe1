"""The queue: a bell that tells workers to look at rows. Losing every message in it costs a few seconds, never work."""

from __future__ import annotations

import logging.config
import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, task_postrun, worker_ready
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.base")

from django.conf import settings  # noqa: E402

from config import file_transport  # noqa: E402

QUEUES = ("generate", "train", "default")

TASK_ROUTES = {
    "rewardtrain.generate_candidates": {"queue": "generate"},
    "rewardtrain.train_reward_model": {"queue": "train"},
    "rewardtrain.train_rule_model": {"queue": "train"},
    "rewardtrain.train_policy": {"queue": "train"},
    "rewardtrain.evaluate_gate": {"queue": "train"},
    "rewardtrain.evaluate_policies": {"queue": "train"},
}

# A bell that was not heard before the next one rings is dropped, so a stopped worker does not come back to a heap.
BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "ring again for what is due": {"task": "feedback.sweep", "schedule": 2.0, "options": {"expires": 10}},
    "advance the rounds": {"task": "rewardtrain.advance_rounds", "schedule": 3.0, "options": {"expires": 15}},
}


def transport_options(broker_url: str) -> dict[str, Any]:
    """What the broker at `broker_url` needs to be told.

    Redis: a short connect timeout and one attempt, so that a page never waits for a dead broker; messages held by a
    killed worker are looked for every 5 s; the visibility timeout is longer than any task, because a message that
    comes back while its task runs would only be refused by the row's claim.
    """
    if broker_url.startswith(("redis://", "rediss://")):
        return {
            "visibility_timeout": 24 * 60 * 60,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 2,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "max_retries": 0,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.2,
            "global_keyprefix": settings.CELERY_KEY_PREFIX,
        }
    if broker_url.startswith(f"{file_transport.SCHEME}://"):
        return file_transport.options(settings.QUEUE_DIR)
    return {}


file_transport.register()
app = Celery("nestbox")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    broker_transport_options=transport_options(settings.CELERY_BROKER_URL),
    broker_connection_timeout=2,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_publish_retry=False,
    task_serializer="json",
    result_serializer="json",
    event_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_queues=[Queue(name, routing_key=name) for name in QUEUES],
    task_default_queue="default",
    task_routes=TASK_ROUTES,
    beat_schedule=BEAT_SCHEDULE,
    beat_scheduler="celery.beat:Scheduler",
    beat_max_loop_interval=1,
    enable_utc=True,
    timezone="UTC",
)
app.autodiscover_tasks()


@setup_logging.connect
def use_django_logging(**kwargs: Any) -> None:
    """Workers and beat log in the form the settings name, like every other process."""
    logging.config.dictConfig(settings.LOGGING)


@worker_ready.connect
def keep_worker_heartbeat(sender: Any = None, **kwargs: Any) -> None:
    """A worker is known by the queues it listens to."""
    from config import heartbeats

    queues = sorted(sender.app.amqp.queues.consume_from)
    heartbeats.keep_touching("worker-" + "-".join(queues))


@beat_init.connect
def keep_beat_heartbeat(**kwargs: Any) -> None:
    from config import heartbeats

    heartbeats.keep_touching("beat")


@task_postrun.connect
def note_sweep(task: Any = None, **kwargs: Any) -> None:
    """A finished sweep proves beat, broker and the default worker at once."""
    from config import heartbeats

    if getattr(task, "name", "") == "feedback.sweep":
        heartbeats.touch("sweep")

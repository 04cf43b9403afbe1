"""Policies behind a server that speaks the OpenAI chat protocol, such as vLLM: at scale, the server does the batching.

Nothing a server sends is trusted: its size, its time, its encoding and its form are bounded and checked, and what goes
wrong becomes a sentence on the request. Nothing is retried here: the request's row is, as often as rows are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from feedback.errors import GenerationFailed
from feedback.models import ModelVersion
from rewardtrain.backends import Draw, FailedJob, GenerationJob, MadeReply, Messages
from rewardtrain.backends.calls import RequestRefused, Server, post
from rewardtrain.backends.outbound import Destination, destination

logger = logging.getLogger(__name__)
CALLS_AT_ONCE = 8
REPLIES_PER_CALL = 16  # servers cap `n`, and an answer must not grow with the draws that are chosen from
LONGEST_REPLY = 100_000  # characters
KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*API_KEY")
SENT_SETTINGS = ("temperature", "top_p", "top_k", "max_new_tokens")
SEARCHED = {"search_query": "Searched for:", "search_results": "Found, to answer with where it helps:"}
ASKS_WHAT_TO_SEARCH = "Do not answer yet. Write only the words you would search for to answer this well, in one line."
SERVERS_NAMES = {"max_new_tokens": "max_tokens"}


class OpenAICompatible:
    """The backend of a served policy: `endpoint` + /chat/completions. See `rewardtrain.backends.Backend`."""

    def __init__(self, version: ModelVersion) -> None:
        self.version = version

    def generate(self, jobs: Sequence[GenerationJob], sampling: Mapping[str, Any]) -> Iterator[MadeReply | FailedJob]:
        """Give replies when their call is answered; several calls are under way at a time.

        A job whose call failed fails once all of its calls are answered, so that what the others made is not lost.
        """
        if unknown := sorted(set(sampling) - set(SENT_SETTINGS)):
            raise GenerationFailed(f"A server knows no sampling setting {', '.join(unknown)}.", permanent=True)
        with ThreadPoolExecutor(max_workers=CALLS_AT_ONCE, thread_name_prefix="model-server") as pool:
            calls = {pool.submit(self._answer, part, sampling): part.key for job in jobs for part in _parts_of(job)}
            open_calls, failed = Counter(calls.values()), dict[int, GenerationFailed]()
            for call in as_completed(calls):
                key = calls[call]
                open_calls[key] -= 1
                try:
                    yield from call.result()
                except GenerationFailed as err:
                    failed.setdefault(key, err)
                if key in failed and not open_calls[key]:
                    yield FailedJob(key, failed[key])

    def _answer(self, job: GenerationJob, sampling: Mapping[str, Any]) -> list[MadeReply]:
        """One call for all replies of a part of a job. A server may give fewer; the next pass asks for the rest."""
        seed = job.draws[0].seed % 2**31  # servers differ in how large a seed may be
        body = {
            "model": self.version.location,
            "messages": as_served(job.messages, job.speaker),
            "n": len(job.draws),
            "seed": seed,
            "logprobs": True,
            **{SERVERS_NAMES.get(name, name): value for name, value in sampling.items()},
        }
        answer = Answer.read(self._call(body))
        made_by = {"n": len(job.draws), **sampling, **answer.names()}
        return [
            self._made(job, draw, choice, seed, made_by | {"choice": place}, answer)
            for place, (draw, choice) in enumerate(zip(job.draws, answer.choices, strict=False))
        ]

    def _call(self, body: Mapping[str, Any]) -> bytes:
        """The answer's body. A server that knows no log-probabilities is asked again without."""
        goal = destination(self.version.endpoint.rstrip("/") + "/chat/completions")
        key = api_key(self.version)
        try:
            return _post(goal, body, key)
        except LogprobsRefused:
            return _post(goal, {name: value for name, value in body.items() if name != "logprobs"}, key)

    def _made(
        self, job: GenerationJob, draw: Draw, choice: Choice, seed: int, made_by: dict[str, Any], answer: Answer
    ) -> MadeReply:
        maker = [self.version.endpoint, self.version.location, answer.model, answer.fingerprint]
        alone = answer.completion_tokens if len(answer.choices) == 1 else None
        return MadeReply(
            key=job.key,
            draw=draw,
            text=choice.text,
            finish_reason=choice.finish_reason,
            model_hash=self.version.content_hash or hashlib.sha256(json.dumps(maker).encode()).hexdigest(),
            seed=seed,
            sampling=made_by,
            mean_logprob=choice.mean_logprob,
            token_count=choice.token_count or alone,
        )


def as_served(messages: Messages, speaker: str) -> list[dict[str, str]]:
    """A dialogue in the roles that servers know: what was searched and found stands in the message that asked for it.

    speaker  `search_query` asks for the words to search for instead of a reply
    """
    served: list[dict[str, str]] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role in SEARCHED and served:
            served[-1]["content"] += f"\n\n{SEARCHED[role]}\n{content}"
        elif role not in SEARCHED:
            served.append({"role": role, "content": content})
    if speaker == "search_query" and served:
        served[-1]["content"] += f"\n\n{ASKS_WHAT_TO_SEARCH}"
    return served


def _parts_of(job: GenerationJob) -> list[GenerationJob]:
    """A job as so many as it takes calls; each call's seed is its first draw's."""
    return [
        replace(job, draws=job.draws[start : start + REPLIES_PER_CALL])
        for start in range(0, len(job.draws), REPLIES_PER_CALL)
    ]


def api_key(version: ModelVersion) -> str:
    """The server's key from the environment; empty when it wants none.

    Only variables that are called keys of an API can be named, so that no other secret can be sent anywhere.
    Raises  GenerationFailed when the variable is not there, or may not be named
    """
    name = version.key_variable
    if not name:
        return ""
    if not KEY_NAME.fullmatch(name):
        raise GenerationFailed(
            "The variable with the model server's key must have a name like MY_API_KEY.", permanent=True
        )
    key = os.environ.get(name, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise GenerationFailed(
            f"The worker's environment has no usable {name}; set it and start the worker again.", permanent=True
        )
    return key


class LogprobsRefused(Exception):
    """The server does not know log-probabilities."""


def _post(goal: Destination, body: Mapping[str, Any], key: str) -> bytes:
    """The body of a model server's answer. Raises  GenerationFailed; LogprobsRefused"""
    server = Server("model server", "the model's endpoint", settings.MODEL_SERVER_SECONDS)
    try:
        return post(server, goal, body, key)
    except RequestRefused as err:
        if err.status == 400 and body.get("logprobs") and b"logprobs" in err.content:
            raise LogprobsRefused from err
        raise


@dataclass(frozen=True)
class Choice:
    """One reply of an answer."""

    text: str
    finish_reason: str
    mean_logprob: float | None
    token_count: int | None

    @classmethod
    def read(cls, choice: Any) -> Choice:
        """A checked choice. Raises GenerationFailed."""
        message = choice.get("message") if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if text is None and isinstance(message, dict):
            text = ""  # a refusal or a tool call: no words
        if not isinstance(text, str) or len(text) > LONGEST_REPLY:
            raise GenerationFailed("The model server's answer holds something that is no reply.")
        logprobs = _logprobs(choice.get("logprobs"))
        mean = sum(logprobs) / len(logprobs) if logprobs else None
        return cls(text, str(choice.get("finish_reason") or "")[:20], mean, len(logprobs) or None)


def _logprobs(logprobs: Any) -> list[float]:
    """Log-probabilities of a reply's tokens where the server gives them all; else none."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    found = [token.get("logprob") if isinstance(token, dict) else None for token in tokens or []]
    usable = all(isinstance(one, int | float) and math.isfinite(one) for one in found)
    return [float(one) for one in found if one is not None] if usable else []


@dataclass(frozen=True)
class Answer:
    """A chat completion, checked."""

    choices: list[Choice]
    model: str
    fingerprint: str
    completion_tokens: int | None

    @classmethod
    def read(cls, content: bytes) -> Answer:
        """Take a body apart.

        Raises  GenerationFailed: not UTF-8, a web page, cut short, no choices
        """
        parsed = _json(content)
        choices = parsed.get("choices")
        if not isinstance(choices, list) or not choices:
            raise GenerationFailed("The model server's answer holds no replies.")
        usage = parsed.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return cls(
            choices=[Choice.read(choice) for choice in choices],
            model=str(parsed.get("model") or "")[:200],
            fingerprint=str(parsed.get("system_fingerprint") or "")[:200],
            completion_tokens=tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else None,
        )

    def names(self) -> dict[str, str]:
        """What the server says it is."""
        found = {"server_model": self.model, "server_fingerprint": self.fingerprint}
        return {name: value for name, value in found.items() if value}


def _json(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as err:
        raise GenerationFailed("The model server's answer is not UTF-8 text.") from err
    if text.lstrip()[:1] == "<":
        raise GenerationFailed("The model server answered with a web page; check the model's endpoint.")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise GenerationFailed("The model server's answer was cut short, or is no JSON.") from err
    if not isinstance(parsed, dict):
        raise GenerationFailed("The model server's answer is not in the form of a chat completion.")
    return parsed

"""Make the replies that requests wait for: claim, batch, draw, choose, redraw copies, store each as it is made.

No torch here: a backend loads what it needs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from feedback import queue
from feedback.errors import FeedbackError, GenerationFailed
from feedback.generation import complete_request, store_candidate
from feedback.models import GenerationRequest, ModelVersion, Turn
from feedback.search import Search
from rewardtrain import evidence
from rewardtrain.backends import Backend, Draw, FailedJob, GenerationJob, MadeReply, backend_for
from rewardtrain.errors import CannotChoose
from rewardtrain.evidence import Evidence
from rewardtrain.model_files import hold_to
from rewardtrain.reply_chooser import Chooser, chooser_for
from rewardtrain.seeds import candidate_seed

logger = logging.getLogger(__name__)
REDRAWS = 3  # how often a copy of a sibling, or an empty reply, is drawn anew
TRIES_IN_COMPANY = 2
SEARCH_QUERY = str(Turn.Role.SEARCH_QUERY)


def generate_candidates(request_id: int) -> int:
    """Make the replies of a request and of what waits beside it. Returns how many requests were taken up.

    Each request ends with its replies, with fewer and the reason, or failed with a reason; or it waits for another
    attempt. One that another worker holds is left alone.
    """
    requests = _claim_waiting(request_id)
    if not requests:
        return 0
    with queue.Heartbeat(requests):
        for (version, sampling), group in _in_groups(requests).items():
            _answer_group(version, json.loads(sampling), group)
    return len(requests)


def _claim_waiting(request_id: int) -> list[GenerationRequest]:
    """The request that was rung for, if it is due, and the oldest due ones beside it."""
    rung_for = queue.claim(GenerationRequest, request_id)
    attempt = max(TRIES_IN_COMPANY, rung_for.attempts if rung_for else 0)
    places = _company(attempt) - bool(rung_for)
    beside = queue.claim_many(GenerationRequest, places, tried_at_most=attempt - 1)
    return ([rung_for] if rung_for else []) + beside


def _company(attempt: int) -> int:
    """How many requests are worked on together when one of them is tried for the `attempt`-th time.

    Ever fewer, in the end it alone: should it be what kills its workers, it takes no other along for ever.
    """
    return max(1, settings.GENERATION_REQUESTS_AT_ONCE // 4 ** (attempt - TRIES_IN_COMPANY))


def _in_groups(requests: Iterable[GenerationRequest]) -> dict[tuple[ModelVersion, str], list[GenerationRequest]]:
    """Requests that can be computed together: the same model, the same sampling."""
    groups = defaultdict(list)
    versions = ModelVersion.objects.in_bulk([request.model_version_id for request in requests])
    for request in requests:
        groups[versions[request.model_version_id], json.dumps(request.sampling, sort_keys=True)].append(request)
    return groups


def _answer_group(version: ModelVersion, sampling: Mapping[str, Any], requests: Sequence[GenerationRequest]) -> None:
    """Answer requests to one model. Whatever goes wrong ends on the rows it concerns."""
    started = time.monotonic()
    chooser, unreranked_because = _chooser(version, sampling, requests)
    unfinished = {request.pk: Unfinished.of(request, chooser, unreranked_because) for request in requests}
    try:
        _draw_until_finished(backend_for(version), version, sampling, list(unfinished.values()))
    except Exception as err:  # noqa: BLE001 - the worker's outermost edge: the reason goes onto every row left over
        expected = isinstance(err, FeedbackError)
        logger.log(logging.WARNING if expected else logging.ERROR, "group failed model=%s", version.pk, exc_info=err)
        for each in unfinished.values():
            each.fail(err if isinstance(err, GenerationFailed) else GenerationFailed(_said_by(err)))
    seconds = time.monotonic() - started
    logger.info("requests worked on model=%s requests=%s seconds=%.2f", version.pk, len(requests), seconds)


def _chooser(
    version: ModelVersion, sampling: Mapping[str, Any], requests: Sequence[GenerationRequest]
) -> tuple[Chooser | None, str]:
    """Who chooses among the draws of these requests, where any wants several; or why nobody does."""
    if all(request.draws == 1 for request in requests):
        return None, ""
    if sampling.get("temperature") == 0:
        return None, "At temperature 0 each draw is the same, so there is nothing to choose from."
    try:
        return chooser_for(version.project), ""
    except CannotChoose as err:
        return None, str(err)
    except Exception as err:  # noqa: BLE001 - no fault of what chooses may cost a reply
        logger.exception("no chooser model=%s", version.pk)
        return None, f"Nothing could choose among the draws: {type(err).__name__}: {err}"[:300]


def _said_by(err: Exception) -> str:
    """A reason people can read, for an error nobody foresaw."""
    return f"The replies could not be made: {type(err).__name__}: {err}"[:500]


def _draw_until_finished(
    backend: Backend, version: ModelVersion, sampling: Mapping[str, Any], unfinished: Sequence[Unfinished]
) -> None:
    """Let the backend draw what is missing until every request is finished, lost or failed."""
    for each in unfinished:
        each.finish_if_complete()
    while waiting := {each.request.pk: each for each in unfinished if each.is_open}:
        for each in waiting.values():
            each.begin_pass()
        _search_first(backend, sampling, waiting)
        for result in backend.generate([job for each in waiting.values() for job in each.jobs()], sampling):
            if isinstance(result, MadeReply):
                hold_to(version, result.model_hash)
            waiting[result.key].take(result)
        for each in waiting.values():
            each.settle()


def _search_first(backend: Backend, sampling: Mapping[str, Any], waiting: Mapping[int, Unfinished]) -> None:
    """Let the replies of this pass that search write what they look for, and find it for them."""
    jobs = [job for each in waiting.values() for job in each.query_jobs()]
    if not jobs:
        return
    for result in backend.generate(jobs, evidence.query_sampling(sampling)):
        if isinstance(result, MadeReply):
            waiting[result.key].take_query(result)
        else:
            waiting[result.key].take(result)


@dataclass
class Unfinished:
    """A request this worker holds: the replies it has, and which try each missing one is at.

    A try is one draw, or where the project wants replies chosen as many as it says: the best that no sibling has said
    is shown, the others are dropped. Try t has the draws t·n to t·n + n - 1, each with a seed of its own.
    """

    request: GenerationRequest
    messages: list[dict[str, str]]
    texts: set[str]
    tries: dict[int, int]  # {index: try to make next}; empty when nothing is missing
    chooser: Chooser | None = None
    unreranked_because: str = ""
    redraws: int = REDRAWS
    search: Search | None = None  # of the replies that search first
    found: dict[tuple[int, int], Evidence] = field(default_factory=dict)  # {(index, draw): what it found}
    made: dict[int, list[MadeReply]] = field(default_factory=dict)  # {index: draws of its try that are there}
    is_open: bool = True
    empty: int = 0
    copies: int = 0
    given: int = 0  # replies the backend gave in this pass

    @classmethod
    def of(cls, request: GenerationRequest, chooser: Chooser | None = None, unreranked_because: str = "") -> Unfinished:
        """What a request still lacks; what a worker before this one stored is kept."""
        stored = {candidate.index: candidate.text for candidate in request.candidates.all()}
        missing = [index for index in range(request.wanted) if index not in stored]
        redraws = 0 if request.sampling.get("temperature") == 0 else REDRAWS  # without chance each draw is the same
        wants_choice = request.draws > 1
        return cls(
            request, _messages(request), set(stored.values()), dict.fromkeys(missing, 0),
            chooser if wants_choice else None, unreranked_because if wants_choice else "", redraws,
            evidence.search_of(request.dialogue.project) if request.searching else None,
        )  # fmt: skip

    @property
    def draws(self) -> int:
        """How many replies a try has: one where nobody could choose among them."""
        return self.request.draws if self.chooser is not None else 1

    def begin_pass(self) -> None:
        """Before the backend is asked again."""
        self.given = 0

    def query_jobs(self) -> list[GenerationJob]:
        """What the backend is asked for first: the words that draws look for which search and have not yet."""
        draws = [
            replace(one, seed=evidence.query_seed(one.seed)) for one in self._missing() if self._has_to_search(one)
        ]
        return [GenerationJob(self.request.pk, self.messages, tuple(draws), SEARCH_QUERY)] if draws else []

    def jobs(self) -> list[GenerationJob]:
        """What the backend is asked for: the draws that are missing of every missing reply's try.

        Those that found something answer a dialogue of their own each, which goes on with it.
        """
        if not self.is_open:
            return []
        plain = tuple(one for one in self._missing() if not self._evidence_of(one).query)
        searched = [one for one in self._missing() if self._evidence_of(one).query]
        return [GenerationJob(self.request.pk, self.messages, plain)] * bool(plain) + [
            GenerationJob(self.request.pk, [*self.messages, *self._evidence_of(one).turns()], (one,))
            for one in searched
        ]

    def _missing(self) -> list[Draw]:
        return [
            Draw(index, draw, candidate_seed(self.request.pk, index, draw))
            for index, tried in self.tries.items()
            for draw in range(tried * self.draws, (tried + 1) * self.draws)
            if draw not in {made.draw.draw for made in self.made.get(index, [])}
        ]

    def _has_to_search(self, draw: Draw) -> bool:
        searches = draw.index >= self.request.wanted - self.request.searching
        return self.is_open and self.search is not None and searches and (draw.index, draw.draw) not in self.found

    def _evidence_of(self, draw: Draw) -> Evidence:
        return self.found.get((draw.index, draw.draw), Evidence())

    def take_query(self, result: MadeReply) -> None:
        """Search by the words a draw wrote. A search that fails ends the attempt, as a reply that fails does."""
        if not self.is_open or self.search is None:
            return
        try:
            self.found[result.draw.index, result.draw.draw] = evidence.gather(self.search, storable(result.text))
        except GenerationFailed as err:
            self.fail(err)

    def take(self, result: MadeReply | FailedJob) -> None:
        """Keep a draw; once its try is whole, store its best or have it drawn again. A failure ends the attempt."""
        if not self.is_open:
            return
        if isinstance(result, FailedJob):
            self.fail(result.error)
            return
        self.given += 1
        index = result.draw.index
        made = self.made.setdefault(index, [])
        made.append(result)
        if len(made) == self.draws:
            self._choose(index, sorted(self.made.pop(index), key=lambda one: one.draw.draw))
        self.finish_if_complete()

    def settle(self) -> None:
        """After a pass: a backend that gave nothing at all for a missing reply must not be asked for ever."""
        if self.is_open and not self.given:
            self.fail(GenerationFailed("The model gave none of the replies it was asked for."))

    def _choose(self, index: int, made: Sequence[MadeReply]) -> None:
        """Store the best draw that says something no sibling has said; where there is none, the next try is made."""
        texts = [storable(one.text) for one in made]
        speaking = [place for place, text in enumerate(texts) if text]
        for passed_over, (place, record) in enumerate(self._best_first(speaking, texts)):
            if texts[place] not in self.texts:
                self._store(made[place], texts[place], record | {"passed_over": passed_over} if record else {})
                return
        self._try_again(index, is_empty=not speaking)

    def _best_first(self, places: Sequence[int], texts: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """(place, how it was chosen) from the best to the worst; in the order drawn where nobody can choose."""
        drawn = {"draws": len(texts), "scored": len(places)} if self.chooser is not None else {}
        if self.chooser is not None and places and not self.unreranked_because:
            try:
                chosen = self.chooser.best_first(self.messages, [texts[place] for place in places])
                return [(places[one.place], drawn | one.record) for one in chosen]
            except CannotChoose as err:
                self.unreranked_because = str(err)
        return [(place, drawn) for place in places]

    def _store(self, made: MadeReply, text: str, reranking: dict[str, Any]) -> None:
        found = self._evidence_of(made.draw)
        stored = store_candidate(
            self.request,
            index=made.draw.index,
            text=text,
            searched=found.turns(),
            evidence=found.as_json(),
            sampling=dict(made.sampling),
            seed=made.seed,
            draw=made.draw.draw,
            reranking=reranking,
            prompt_hash=prompt_hash([*self.messages, *found.turns()]),
            model_hash=made.model_hash,
            mean_logprob=made.mean_logprob,
            token_count=made.token_count,
            finish_reason=made.finish_reason[:20],
        )
        if stored is None:
            self._let_go()
            return
        self.texts.add(text)
        self.tries.pop(made.draw.index, None)

    def _try_again(self, index: int, *, is_empty: bool) -> None:
        if self.tries[index] < self.redraws:
            self.tries[index] += 1
            return
        del self.tries[index]
        self.empty += is_empty
        self.copies += not is_empty

    def finish_if_complete(self) -> None:
        """Close the request once nothing is missing that could still be made."""
        if not self.is_open or self.tries:
            return
        if not self.texts:
            self.fail(GenerationFailed(f"Each reply stayed empty, however often it was drawn. {SKIP}", permanent=True))
            return
        complete_request(self.request, fewer_because=self.fewer_because(), unreranked_because=self.unreranked_because)
        self.is_open = False

    def fewer_because(self) -> str:
        """Why there are fewer replies than wanted; empty when there are as many."""
        reasons = [f"{self.copies} came out as copies of another"] * bool(self.copies)
        reasons += [f"{self.empty} stayed empty"] * bool(self.empty)
        tries = f"Drawn again {self.redraws} times" if self.redraws else "At temperature 0 each draw is the same"
        return f"{tries}: {' and '.join(reasons)}." if reasons else ""

    def fail(self, error: GenerationFailed) -> None:
        """Put the reason on the row, which waits for another attempt unless that is useless."""
        if not self.is_open:
            return
        self.is_open = False
        logger.warning("request failed request=%s permanent=%s", self.request.pk, error.permanent)
        queue.fail(self.request, error.message, permanent=error.permanent, retry_after=error.retry_after)

    def _let_go(self) -> None:
        """Another worker has the request now; whatever this one still makes for it is dropped."""
        logger.info("request taken over by another worker request=%s", self.request.pk)
        self.is_open = False


SKIP = "Skip this dialogue, or write its last message in other words."


def _messages(request: GenerationRequest) -> list[dict[str, str]]:
    """The dialogue as far as the request answers it."""
    turns = Turn.objects.filter(dialogue=request.dialogue_id, position__lte=request.after_position)
    named = turns.order_by("position").values_list("role", "content")
    return [{"role": role, "content": content} for role, content in named]


def prompt_hash(messages: Sequence[Mapping[str, str]]) -> str:
    """sha256 of a dialogue's roles and contents: what a reply answered."""
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


def storable(text: str) -> str:
    """A reply as every database can keep it: without NUL and unpaired surrogates, blanks at its ends dropped."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()

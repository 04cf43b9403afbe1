"""A server that speaks the OpenAI protocol: asked rightly, never trusted, and its faults become sentences."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from feedback import queue
from feedback.errors import GenerationFailed
from feedback.models import GenerationRequest, ModelVersion
from rewardtrain.backends import Draw, FailedJob, GenerationJob, MadeReply, calls, outbound
from rewardtrain.backends.openai_compatible import OpenAICompatible, as_served
from rewardtrain.generation import REDRAWS, generate_candidates
from tests import make
from tests.rewardtrain import stub_server
from tests.rewardtrain.stub_server import StubServer, choice, completion, refuses, says, sends, serving

SECRET = "sk-canary-7f3a"


@pytest.fixture(autouse=True)
def patience(settings: Any, request: pytest.FixtureRequest) -> None:
    """Little with servers that never answer, much with others, however busy the machine."""
    is_slow = any(name in request.node.name for name in ("hangs]", "drips]"))
    settings.MODEL_SERVER_SECONDS = 0.4 if is_slow else 20


def allow(settings: Any, *servers: StubServer) -> None:
    settings.MODEL_HOSTS = [server.host for server in servers]


def served_model(server: StubServer, **fields: Any) -> ModelVersion:
    """A model version that is not stored: the backend alone is asked."""
    return ModelVersion(kind="policy", backend="openai", location="desk-7b", endpoint=server.endpoint, **fields)


def job(key: int = 1, text: str = "Why?", count: int = 4) -> GenerationJob:
    draws = tuple(Draw(index, 0, 1000 * key + index) for index in range(count))
    return GenerationJob(key, [{"role": "user", "content": text}], draws)


def results(
    server: StubServer, *jobs: GenerationJob, sampling: dict[str, Any] | None = None, **fields: Any
) -> list[Any]:
    return list(OpenAICompatible(served_model(server, **fields)).generate(jobs or (job(),), sampling or {}))


def failure(server: StubServer, **fields: Any) -> GenerationFailed:
    """The one failure that a single job ends with."""
    (result,) = results(server, **fields)
    assert isinstance(result, FailedJob)
    return result.error


# Asked rightly


def test_all_replies_of_a_dialogue_are_asked_for_in_one_call(settings: Any) -> None:
    with serving(stub_server.answers) as server:
        allow(settings, server)
        made = results(server, sampling={"temperature": 0.7, "max_new_tokens": 48, "top_p": 0.9})
    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["host"] == server.host
    assert "authorization" not in call.headers
    expected = {"model": "desk-7b", "n": 4, "temperature": 0.7, "max_tokens": 48, "top_p": 0.9, "seed": 1000}
    assert call.body.items() >= expected.items()
    assert call.body["messages"] == [{"role": "user", "content": "Why?"}]
    assert [reply.draw.index for reply in made] == [0, 1, 2, 3]
    assert len({reply.text for reply in made}) == 4


def test_what_was_searched_and_found_reaches_a_server_in_the_message_that_asked(settings: Any) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How often?"},
        {"role": "search_query", "content": "fern water"},
        {"role": "search_results", "content": "Ferns: twice a week."},
    ]
    assert as_served(turns[:2], "assistant") == turns[:2]
    assert as_served(turns, "assistant") == [
        turns[0],
        {
            "role": "user",
            "content": "How often?\n\nSearched for:\nfern water\n\n"
            "Found, to answer with where it helps:\nFerns: twice a week.",
        },
    ]
    with serving(stub_server.answers) as server:
        allow(settings, server)
        results(server, dataclasses.replace(job(count=1), speaker="search_query"))
    (message,) = server.calls[0].body["messages"]
    assert message["content"].startswith("Why?\n\nDo not answer yet. Write only the words")


def test_many_draws_are_asked_for_in_calls_that_every_server_takes(settings: Any) -> None:
    def caps_n(call: stub_server.Call) -> None:
        (stub_server.answers if call.body["n"] <= 16 else refuses(400, "n must be at most 16"))(call)

    with serving(caps_n) as server:
        allow(settings, server)
        made = results(server, job(count=9 * 16 - 2))
    assert sorted((call.body["seed"], call.body["n"]) for call in server.calls) == [
        *((1000 + start, 16) for start in range(0, 128, 16)),
        (1128, 14),
    ]
    assert sorted(reply.draw.index for reply in made) == list(range(142))
    assert {reply.seed for reply in made if reply.draw.index in range(16, 32)} == {1016}
    assert len({reply.text for reply in made}) == 142


def test_what_other_calls_of_a_job_made_is_given_before_it_fails_once(settings: Any) -> None:
    def fails_at_first(call: stub_server.Call) -> None:
        (refuses(500) if call.body["seed"] < 1032 else stub_server.answers)(call)

    with serving(fails_at_first) as server:
        allow(settings, server)
        *made, failed = results(server, job(count=40))
    assert sorted(reply.draw.index for reply in made) == list(range(32, 40))
    assert isinstance(failed, FailedJob) and failed.key == 1


def test_a_reply_says_what_exactly_made_it(settings: Any) -> None:
    with serving(stub_server.answers) as server:
        allow(settings, server)
        first, second = results(server, job(count=2), sampling={"temperature": 0.7})
        (other,) = results(server, job(count=1))
    assert first.seed == 1000
    assert second.sampling == {
        "n": 2,
        "temperature": 0.7,
        "server_model": "stub-1",
        "server_fingerprint": "fp-9",
        "choice": 1,
    }
    assert len(first.model_hash) == 64
    assert first.model_hash == other.model_hash
    assert (first.mean_logprob, first.token_count, first.finish_reason) == (-1.0, 2, "stop")


def test_tokens_are_counted_by_the_usage_when_no_logprobs_came(settings: Any) -> None:
    with serving(says("Water it less.")) as server:
        allow(settings, server)
        (alone,) = results(server, job(count=1))
    with serving(says("Water it less.", "More light.")) as server:
        allow(settings, server)
        one_of_two, _ = results(server, job(count=2))
    assert (alone.mean_logprob, alone.token_count) == (None, 7)
    assert one_of_two.token_count is None


def test_seeds_fit_into_what_every_server_takes(settings: Any) -> None:
    with serving(stub_server.answers) as server:
        allow(settings, server)
        (made,) = results(server, GenerationJob(1, job().messages, (Draw(0, 0, 2**62 + 5),)))
    assert made.seed == server.calls[0].body["seed"] == 5


def test_the_key_is_taken_from_the_named_variable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_API_KEY", SECRET)
    with serving(stub_server.answers) as server:
        allow(settings, server)
        results(server, key_variable="DESK_API_KEY")
    assert server.calls[0].headers["authorization"] == f"Bearer {SECRET}"


def test_a_variable_that_is_no_api_key_is_never_sent(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", SECRET)
    with serving(stub_server.answers) as server:
        allow(settings, server)
        error = failure(server, key_variable="DJANGO_SECRET_KEY")
    assert error.permanent
    assert server.calls == []


@pytest.mark.parametrize("value", [None, "", "two\nlines"])
def test_a_missing_or_broken_key_is_named(settings: Any, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("DESK_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("DESK_API_KEY", value)
    with serving(stub_server.answers) as server:
        allow(settings, server)
        error = failure(server, key_variable="DESK_API_KEY")
    assert "DESK_API_KEY" in error.message
    assert server.calls == []


def test_a_server_that_knows_no_logprobs_is_asked_without(settings: Any) -> None:
    with serving(stub_server.knows_no_logprobs) as server:
        allow(settings, server)
        made = results(server)
    assert [call.body.get("logprobs") for call in server.calls] == [True, None]
    assert [type(reply) for reply in made] == [MadeReply] * 4


def test_an_unknown_sampling_setting_is_refused(settings: Any) -> None:
    with serving(stub_server.answers) as server, pytest.raises(GenerationFailed, match="beams"):
        results(server, sampling={"beams": 4})


def test_several_dialogues_are_under_way_at_once_and_one_failure_is_its_own(settings: Any) -> None:
    def fails_for_two(call: stub_server.Call) -> None:
        bad = call.body["messages"][-1]["content"] == "2"
        (refuses(500) if bad else stub_server.answers)(call)

    with serving(fails_for_two) as server:
        allow(settings, server)
        found = results(server, *(job(key, str(key), count=2) for key in range(5)))
    assert sorted(result.key for result in found if isinstance(result, MadeReply)) == [0, 0, 1, 1, 3, 3, 4, 4]
    assert [result.key for result in found if isinstance(result, FailedJob)] == [2]


# Never trusted

FAULTS: dict[str, tuple[stub_server.Behaviour, str]] = {
    "hangs": (stub_server.hangs, "did not answer within"),
    "drips": (stub_server.drips, "too slowly"),
    "hangs up": (stub_server.hangs_up, "connection to the model server broke"),
    "breaks off": (stub_server.breaks_off, "connection to the model server broke"),
    "cut JSON": (sends(completion([choice("A reply")])[:40]), "cut short"),
    "busy": (refuses(429), "busy"),
    "fails": (refuses(500), "failed (500)"),
    "is down": (refuses(503), "failed (503)"),
    "50 MB": (stub_server.floods, "larger than 4 MB"),
    "too much compressed": (stub_server.floods_compressed, "compressed"),
    "Latin-1": (sends('{"choices": "größer"}'.encode("latin-1")), "not UTF-8"),
    "web page": (sends(b"<!doctype html><script>alert(1)</script>", "text/html"), "web page"),
    "a list": (sends(b"[1, 2]"), "not in the form"),
    "no choices": (sends(b'{"choices": []}'), "no replies"),
    "odd choices": (sends(b'{"choices": [7]}'), "no reply"),
    "odd text": (sends(b'{"choices": [{"message": {"content": {"a": 1}}}]}'), "no reply"),
    "endless text": (says("x" * 200_000), "no reply"),
    "deep JSON": (sends(b"[" * 200_000), "no JSON"),
    "elsewhere": (stub_server.redirects_to("http://127.0.0.1:1/"), "sends us elsewhere (307)"),
    "wrong key": (refuses(401, f"Incorrect key: {SECRET}"), "refused its key"),
    "no such model": (refuses(404, "no model desk-7b"), "It said: no model desk-7b"),
    "too long": (refuses(400, "context is 512 tokens"), "It said: context is 512 tokens"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_becomes_a_sentence(settings: Any, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    behaviour, reason = FAULTS[fault]
    monkeypatch.setenv("DESK_API_KEY", SECRET)
    with serving(behaviour) as server:
        allow(settings, server)
        error = failure(server, key_variable="DESK_API_KEY")
    assert reason in error.message
    assert SECRET not in error.message
    assert "<" not in error.message
    assert len(error.message) < 400
    assert len(server.calls) == 1


@pytest.mark.parametrize("fault", ["wrong key", "no such model", "too long", "elsewhere", "too much compressed"])
def test_what_no_second_try_can_mend_fails_for_good(settings: Any, fault: str) -> None:
    with serving(FAULTS[fault][0]) as server:
        allow(settings, server)
        assert failure(server).permanent


@pytest.mark.parametrize("fault", ["hangs", "hangs up", "busy", "is down", "50 MB", "cut JSON"])
def test_what_may_pass_is_tried_again(settings: Any, fault: str) -> None:
    with serving(FAULTS[fault][0]) as server:
        allow(settings, server)
        assert not failure(server).permanent


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("99999", 300.0), ("soon", None), ("-1", None)])
def test_a_busy_server_says_when_to_come_back_within_reason(settings: Any, said: str, seconds: float | None) -> None:
    with serving(refuses(429, Retry_After=said)) as server:
        allow(settings, server)
        assert failure(server).retry_after == seconds


def test_a_server_that_stays_busy_leaves_no_promise_on_the_request(settings: Any) -> None:
    with serving(refuses(429)) as server:
        allow(settings, server)
        assert failure(server).message == "The model server is busy (429)."


def test_a_server_that_is_not_there_is_said_to_be_away(settings: Any) -> None:
    with serving(stub_server.answers) as server:
        pass
    server.server_close()
    allow(settings, server)
    error = failure(server)
    assert "connection to the model server broke" in error.message
    assert not error.permanent


def test_a_key_that_a_server_repeats_is_not_shown(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_API_KEY", SECRET)
    with serving(refuses(400, f"bad header Bearer {SECRET} \x1b[31m")) as server:
        allow(settings, server)
        message = failure(server, key_variable="DESK_API_KEY").message
    assert SECRET not in message
    assert message.isprintable()


def test_log_probabilities_that_are_no_numbers_are_left_out(settings: Any) -> None:
    odd = choice("Less water.")
    odd["logprobs"] = {"content": [{"logprob": -1.0}, {"logprob": float("nan")}]}
    with serving(sends(completion([odd]))) as server:
        allow(settings, server)
        (made,) = results(server, job(count=1))
    assert made.mean_logprob is None


def test_more_replies_than_asked_for_are_dropped(settings: Any) -> None:
    with serving(says("a", "b", "c")) as server:
        allow(settings, server)
        assert [made.text for made in results(server, job(count=2))] == ["a", "b"]


def test_proxies_of_the_environment_are_not_used(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(stub_server.answers) as server, serving(stub_server.answers) as proxy:
        allow(settings, server)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        results(server)
    assert (len(server.calls), len(proxy.calls)) == (1, 0)


# Where calls may go


def test_a_server_that_is_not_listed_is_not_called(settings: Any) -> None:
    settings.MODEL_HOSTS = []
    with serving(stub_server.answers) as server:
        error = failure(server)
    assert error.permanent
    assert "NESTBOX_MODEL_HOSTS" in error.message
    assert server.calls == []


LISTED = ["models.example:443", "127.0.0.1:8001", "[::1]:8001", "169.254.169.254:80", "meta.example:80"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8002/v1",
        "http://127.0.0.1/v1",
        "http://localhost:8001/v1",
        "http://127.1:8001/v1",
        "http://2130706433:8001/v1",
        "http://0x7f000001:8001/v1",
        "http://0177.0.0.1:8001/v1",
        "http://0.0.0.0:8001/v1",
        "http://[::ffff:127.0.0.1]:8001/v1",
        "http://[::ffff:7f00:1]:8001/v1",
        "http://[0:0:0:0:0:0:0:1%25lo]:8001/v1",
        "http://user@127.0.0.1:8001/v1",
        "http://user:word@127.0.0.1:8001/v1",
        "http://127.0.0.1:8001@evil.example/v1",
        "http://evil.example#127.0.0.1:8001/v1",
        "http://127.0.0.1:8001\\@evil.example/v1",
        "http://127.0.0.1:8001/v1?next=http://evil.example",
        "http://127.0.0.1:8001/v1#part",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:eight/v1",
        "http://evil.example:443/v1",
        "https://models.example.evil.example/v1",
        "http://models.example/v1",
        "https://models.example:8443/v1",
        "ftp://127.0.0.1:8001/v1",
        "file:///etc/passwd",
        "gopher://127.0.0.1:8001/v1",
        "//127.0.0.1:8001/v1",
        "127.0.0.1:8001/v1",
        "http:///v1",
        "http://",
        "",
        "http://127.0.0.1:8001/v1\r\nX: y",
        "http://127.0.0.1:8001\t/v1",
        "http://127.0.0.1:8001 /v1",
        "http://127。0。0。1:8001/v1",
        "http://①②⑦.0.0.1:8001/v1",
        "http://[::1/v1",
        "http://[fe80::1]:8001/v1",
        "http://metadata.google.internal/v1",
    ],
)
def test_no_trick_of_a_url_leads_past_the_list(settings: Any, url: str) -> None:
    settings.MODEL_HOSTS = LISTED
    with pytest.raises(GenerationFailed) as refused:
        outbound.destination(url)
    assert refused.value.permanent


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("10.0.0.7", True),  # a network of one's own, which the operator named
        ("127.0.0.1", True),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
        ("::", False),
        ("2606:2800:220:1::1", True),
    ],
)
def test_a_listed_name_may_not_lead_to_metadata_or_odd_addresses(
    settings: Any, monkeypatch: pytest.MonkeyPatch, address: str, allowed: bool
) -> None:
    settings.MODEL_HOSTS = LISTED
    family = 10 if ":" in address else 2
    monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *args, **kw: [(family, 1, 6, "", (address, 80))])
    if allowed:
        found = outbound.destination("http://meta.example/v1")
        assert (found.address, found.host_header) == (address, "meta.example")
    else:
        with pytest.raises(GenerationFailed, match="no name may lead to"):
            outbound.destination("http://meta.example/v1")


def test_every_address_of_a_name_is_checked(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MODEL_HOSTS = LISTED
    both = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "169.254.169.254")]
    monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *args, **kw: both)
    with pytest.raises(GenerationFailed):
        outbound.destination("http://meta.example/v1")


def test_an_address_that_is_listed_itself_is_called(settings: Any) -> None:
    settings.MODEL_HOSTS = LISTED
    assert outbound.destination("http://169.254.169.254/v1").url == "http://169.254.169.254:80/v1"
    assert outbound.destination("http://[::1]:8001/v1").url == "http://[::1]:8001/v1"
    assert outbound.destination("http://[::1]:8001/v1").host_header == "[::1]:8001"


def test_a_name_that_changes_after_the_check_changes_nothing(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is asked once; the call goes to the address that was checked, with the name in its Host header."""
    with serving(stub_server.answers) as server:
        settings.MODEL_HOSTS = [f"moving.example:{server.server_port}"]
        asked: list[str] = []
        real = outbound.socket.getaddrinfo

        def moving(host: str, *args: Any, **kw: Any) -> Any:
            if host != "moving.example":
                return real(host, *args, **kw)
            asked.append(host)
            address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
            return [(2, 1, 6, "", (address, server.server_port))]

        monkeypatch.setattr(outbound.socket, "getaddrinfo", moving)
        version = served_model(server)
        version.endpoint = f"http://moving.example:{server.server_port}/v1"
        made = list(OpenAICompatible(version).generate([job()], {}))
    assert [type(one) for one in made] == [MadeReply] * 4
    assert asked == ["moving.example"]
    assert server.calls[0].headers["host"] == f"moving.example:{server.server_port}"


def test_a_name_that_is_not_found_just_now_is_tried_again(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: Any, **kw: Any) -> None:
        raise OSError("no such name")

    settings.MODEL_HOSTS = LISTED
    monkeypatch.setattr(outbound.socket, "getaddrinfo", nothing)
    with pytest.raises(GenerationFailed) as err:
        outbound.destination("http://meta.example/v1")
    assert not err.value.permanent


# Whole requests

ENDS_WELL = {
    "answers": (stub_server.answers, 1),
    "fewer than asked": (says("Only this one."), 1),
    "empty": (says("", "  ", None, ""), 1),
    "all the same": (says("Same.", "Same.", "Same.", "Same."), 1),
}


def served_request(settings: Any, server: StubServer) -> GenerationRequest:
    allow(settings, server)
    project = make.make_project()
    ModelVersion.objects.filter(pk=project.policy_id).update(backend="openai", endpoint=server.endpoint)
    return make.make_request(make.make_dialogue(project))


def work_until_finished(request: GenerationRequest) -> GenerationRequest:
    """What sweep and worker do, without the waiting between attempts."""
    for _ in range(request.max_attempts + 3):
        GenerationRequest.objects.filter(pk=request.pk, state="queued").update(due_at=timezone.now())
        generate_candidates(request.pk)
    request.refresh_from_db()
    return request


@pytest.mark.django_db
@pytest.mark.parametrize("fault", [*FAULTS, *ENDS_WELL])
def test_every_fault_ends_with_replies_or_a_reason_in_at_most_the_attempts_allowed(settings: Any, fault: str) -> None:
    behaviour = (FAULTS | ENDS_WELL)[fault][0]
    with serving(behaviour) as server:
        request = work_until_finished(served_request(settings, server))
    made = request.candidates.count()
    if request.state == "done":
        assert made == request.wanted or (made and request.fewer_because)
    else:
        assert request.state == "failed"
        assert request.error
        assert "<" not in request.error
    most_passes = request.max_attempts if fault in FAULTS else request.wanted * (1 + REDRAWS)
    assert 1 <= len(server.calls) <= most_passes


@pytest.mark.django_db
def test_a_server_that_gives_one_reply_at_a_time_is_asked_until_there_are_enough(settings: Any) -> None:
    replies = (says(f"Reply {number}.") for number in range(9))
    with serving(*replies) as server:
        request = work_until_finished(served_request(settings, server))
    assert request.state == "done"
    assert sorted(candidate.text for candidate in request.candidates.all()) == [f"Reply {n}." for n in range(4)]
    assert [call.body["n"] for call in server.calls] == [4, 3, 2, 1]


@pytest.mark.django_db
def test_a_server_that_recovers_answers_the_next_attempt(settings: Any) -> None:
    with serving(refuses(503), stub_server.answers) as server:
        request = work_until_finished(served_request(settings, server))
    assert (request.state, request.candidates.count(), request.error) == ("done", 4, "")


@pytest.mark.django_db
def test_a_busy_servers_wish_is_kept(settings: Any) -> None:
    with serving(refuses(429, Retry_After="40")) as server:
        request = served_request(settings, server)
        generate_candidates(request.pk)
    request.refresh_from_db()
    assert request.state == "queued"
    assert timedelta(seconds=35) < request.due_at - timezone.now() <= timedelta(seconds=40)
    assert queue.claim(GenerationRequest, request.pk) is None


@pytest.mark.django_db
def test_what_a_server_writes_is_stored_as_text_any_database_takes(settings: Any) -> None:
    odd = json.dumps({"choices": [choice("nul \x00 and \ud800 half <b>bold</b>")]}).encode()
    with serving(sends(odd)) as server:
        request = served_request(settings, server)
        GenerationRequest.objects.filter(pk=request.pk).update(wanted=1)
        work_until_finished(request)
    assert request.candidates.get().text == "nul  and ? half <b>bold</b>"


def test_certificates_are_always_checked() -> None:
    assert calls.certificates().check_hostname

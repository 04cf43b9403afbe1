"""What replies cost: four for one dialogue beside one, and sixteen dialogues together beside one by one.

`make bench` prints the table. CPU seconds of this process on one thread, the best of three, so that other work on the
machine matters little. The starter policy speaks; where there is none, a random network of its size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from rich.console import Console
from rich.table import Table

from rewardtrain.model_files import STARTER_LOCATION, folder_at
from rewardtrain.policy import Policy, load_policy
from rewardtrain.sampling import Reply, SamplingSettings, sample_replies
from rewardtrain.seeds import stable_seed
from tests.rewardtrain import tiny

SETTINGS = SamplingSettings(max_new_tokens=48)
OPENINGS = [f"Why are the leaves of my plant number {number} yellow since last week?" for number in range(16)]


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = folder_at(STARTER_LOCATION)
    found = (folder / "config.json").exists()
    yield load_policy(folder) if found else Policy(tiny.make_llama(hidden=192, layers=6), tiny.make_tokenizer())
    torch.set_num_threads(threads)


def draw(policy: Policy, openings: list[str], replies: int) -> list[Reply]:
    """So many replies to each opening, in one batch."""
    prompts = [[{"role": "user", "content": text}] for text in openings for _ in range(replies)]
    seeds = [stable_seed(text, number) for text in openings for number in range(replies)]
    return sample_replies(policy, policy.tokenizer, prompts, settings=SETTINGS, seeds=seeds)


def best_of_three(work: Callable[[], list[Reply]]) -> tuple[float, list[Reply]]:
    """(CPU seconds, the replies)."""
    seconds, replies = [], []
    for _ in range(3):
        started = time.process_time()
        replies = work()
        seconds.append(time.process_time() - started)
    return min(seconds), replies


@pytest.mark.slow
def test_sharing_and_batching_pay_and_change_no_reply(policy: Policy) -> None:
    draw(policy, OPENINGS[:1], 1)
    measured = {
        "1 dialogue, 1 reply": best_of_three(lambda: draw(policy, OPENINGS[:1], 1)),
        "1 dialogue, 4 replies": best_of_three(lambda: draw(policy, OPENINGS[:1], 4)),
        "16 dialogues of 4, one by one": best_of_three(
            lambda: [r for text in OPENINGS for r in draw(policy, [text], 4)]
        ),
        "16 dialogues of 4, together": best_of_three(lambda: draw(policy, OPENINGS, 4)),
    }
    show(measured)
    (one, _), (four, _), (apart, said_apart), (together, said_together) = measured.values()
    assert [reply.text for reply in said_together] == [reply.text for reply in said_apart]
    assert four < 4 * one
    assert together < 0.8 * apart


def show(measured: dict[str, tuple[float, list[Reply]]]) -> None:
    table = Table(title="Replies: CPU seconds on one thread")
    for heading in ("what", "seconds", "tokens", "tokens a second"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, (seconds, replies) in measured.items():
        tokens = sum(len(reply.token_ids) for reply in replies)
        table.add_row(what, f"{seconds:.3f}", str(tokens), f"{tokens / seconds:.0f}")
    Console().print(table)

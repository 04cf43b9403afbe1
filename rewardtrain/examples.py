"""What a policy learns to say word for word: demonstrations and pieces of a corpus, as tokens and in which order.

No torch here. Nothing is tokenised anywhere else, so that no text can spell a token that opens or closes a turn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rewardtrain.chat import Reply, Turn, encode_document, encode_prompt, encode_reply
from rewardtrain.hyperparameters import LONGEST_REPLY, SHORTEST_PIECE
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

IGNORED = -100  # the label of a token that carries no loss, as torch and TRL have it


@dataclass(frozen=True)
class Demonstrated:
    """A dialogue so far and the reply that a person wrote to it."""

    prompt: list[Turn]
    reply: Reply


@dataclass(frozen=True)
class Example:
    """Tokens of which those from `start` on are learned. The first of a row is never: nothing comes before it."""

    ids: list[int]
    start: int = 1
    is_corpus: bool = False

    def __post_init__(self) -> None:
        assert 0 < self.start < len(self.ids), (self.start, len(self.ids))

    @property
    def labels(self) -> list[int]:
        """What TRL takes: the tokens that are learned, and elsewhere that nothing is."""
        return [IGNORED] * self.start + self.ids[self.start :]

    @property
    def learned(self) -> list[int]:
        return self.ids[self.start :]

    @property
    def before(self) -> list[int]:
        return self.ids[: self.start]


@dataclass
class Cuts:
    """How much of the demonstrations did not fit."""

    dialogues: int = 0  # lost their oldest turns
    replies: int = 0  # are learned up to a point, and not that they end there


def demonstration_examples(
    tokenizer: Tokenizer,
    demonstrations: Iterable[Demonstrated],
    *,
    max_positions: int,
    max_prompt_tokens: int,
    max_reply_tokens: int = LONGEST_REPLY,
) -> tuple[list[Example], Cuts]:
    """(an example of each, what was cut). Only the reply is learned: its tokens and the one that ends it.

    What the assistant said earlier in a dialogue is read and not learned; where people wrote it, it is a
    demonstration of its own.
    """
    longest = min(max_reply_tokens, max_positions // 2)  # a small network keeps room for the prompt
    room = min(max_prompt_tokens, max_positions - longest)
    found, cuts = [], Cuts()
    for one in demonstrations:
        prompt = encode_prompt(tokenizer, one.prompt, room)
        reply = encode_reply(tokenizer, one.reply)
        cuts.dialogues += bool(prompt.turns_cut or prompt.tokens_cut)
        cuts.replies += len(reply) > longest
        found.append(Example([*prompt.ids, *reply[:longest]], start=len(prompt.ids)))
    return found, cuts


def corpus_pieces(tokenizer: Tokenizer, documents: Iterable[str], length: int) -> list[Example]:
    """A corpus in pieces of `length` tokens, every token learned but the first of each.

    Documents follow each other with the end-of-sequence token between them. What is left at the end is a shorter piece
    where there is no other, and left out elsewhere: so every epoch has as many.
    """
    stream: list[int] = []
    for document in documents:
        stream += encode_document(tokenizer, document)
    cuts = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    cuts = cuts or ([stream] if len(stream) >= SHORTEST_PIECE else [])
    return [Example(piece, is_corpus=True) for piece in cuts]


@dataclass
class Mixture:
    """Demonstrations and pieces of a corpus in an endless order that follows from the seed alone.

    Every epoch has each demonstration once, and so much of the corpus that its tokens are `corpus_share` of those that
    are learned; the corpus goes on where the epoch before stopped. Without demonstrations every epoch is the corpus.
    """

    demonstrations: Sequence[Example]
    pieces: Sequence[Example] = ()
    corpus_share: float = 0.0
    seed: int = 0
    _known: dict[int, list[Example]] = field(default_factory=dict, repr=False)
    _orders: dict[int, list[int]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.demonstrations) + len(self._amounts())

    def __getitem__(self, place: int) -> Example:
        """The row at a place of the endless order, from 0."""
        epoch, own = divmod(place, len(self))
        return self._epoch(epoch)[own]

    def _amounts(self) -> list[int]:
        """How many tokens of each piece an epoch learns: all, and of the last one what is still wanted."""
        if not self.pieces:
            return []
        each = len(self.pieces[0].learned)
        if not self.demonstrations:
            return [each] * len(self.pieces)
        said = sum(len(one.learned) for one in self.demonstrations)
        wanted = round(self.corpus_share / (1 - self.corpus_share) * said)
        return [min(each, wanted - taken) for taken in range(0, wanted, each)]

    def _epoch(self, epoch: int) -> list[Example]:
        if epoch not in self._known:
            amounts = self._amounts()
            first = epoch * len(amounts)
            pieces = [self._piece(first + number, amount) for number, amount in enumerate(amounts)]
            rows = [*self.demonstrations, *pieces]
            random.Random(stable_seed(self.seed, "order", epoch)).shuffle(rows)
            self._known = {epoch: rows}  # one is enough: they are asked for in turn
        return self._known[epoch]

    def _piece(self, number: int, amount: int) -> Example:
        """The corpus is gone through in an order of its own each time."""
        time, place = divmod(number, len(self.pieces))
        if time not in self._orders:
            order = list(range(len(self.pieces)))
            random.Random(stable_seed(self.seed, "corpus", time)).shuffle(order)
            self._orders = {time: order}
        return Example(self.pieces[self._orders[time][place]].ids[: amount + 1], is_corpus=True)


def rows_for(mixture: Mixture, *, epochs: float, steps: int, rows_per_step: int) -> list[list[Example]]:
    """The rows of each optimiser step; those of like length stand together, which spares padding.

    steps  how many there are; 0: as many as the epochs take
    """
    wanted = steps * rows_per_step or max(1, round(epochs * len(mixture)))
    found = []
    for start in range(0, wanted, rows_per_step):
        own = [mixture[place] for place in range(start, min(start + rows_per_step, wanted))]
        found.append(sorted(own, key=lambda one: len(one.ids)))
    assert len(found) == math.ceil(wanted / rows_per_step)
    return found

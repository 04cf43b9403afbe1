"""Dialogue to tokens and back.

A prompt and a reply are tokenised apart, so that the tokens of the prompt do not depend on the reply and can be
encoded once for all replies to it. Turns are dictionaries with `role` and `content`, as in the exports.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

logger = logging.getLogger(__name__)


class Turn(TypedDict):
    """One message by one speaker."""

    role: str
    content: str


Reply = str | Sequence[Turn]
"""The assistant's next turn as text, or several turns when a candidate is several turns long."""

ROLE_NAMES = {
    "system": "System",
    "user": "User",
    "assistant": "Assistant",
    "search_query": "Search query",
    "search_results": "Search results",
}

STAND_IN = "\u2402reply\u2403"
"""Stands for a reply while a template is asked what it puts after one."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A dialogue as tokens, ready for the next reply. What did not fit was cut from the left."""

    ids: list[int]
    turns_cut: int = 0
    tokens_cut: int = 0


def encode_prompt(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    max_tokens: int,
    *,
    reply_follows: bool = True,
    speaker: str = "assistant",
) -> EncodedPrompt:
    """The tokens of a dialogue, at most `max_tokens`, with the opening of the next turn, the assistant's as a rule.

    A dialogue that is too long loses its oldest turns, a leading system turn excepted, until it fits; what is left
    starts with a user's turn where there is one. Only a last turn that is too long by itself is cut inside.

    turns_cut      how many turns were left out
    tokens_cut     how many tokens the last turn lost
    reply_follows  False when a candidate begins with another speaker's turn, so that none is opened
    speaker        whose turn is opened, such as `search_query`
    """
    ids: list[int] = []
    turns_cut = 0
    for turns_cut, kept in _ever_shorter(turns):
        ids = _prompt_ids(tokenizer, kept, speaker if reply_follows else None)
        if len(ids) <= max_tokens:
            return EncodedPrompt(ids, turns_cut)
    return EncodedPrompt(ids[-max_tokens:], turns_cut, tokens_cut=len(ids) - max_tokens)


def _ever_shorter(turns: Sequence[Turn]) -> Iterable[tuple[int, list[Turn]]]:
    """(turns left out, turns kept), the whole dialogue first, its last turn alone at the end."""
    turns = list(turns)
    yield 0, turns
    system = turns[:1] if turns and turns[0]["role"] == "system" else []
    rest = turns[len(system) :]
    starts = [place for place in range(1, len(rest)) if rest[place]["role"] == "user"]
    for start in starts:
        yield start, system + rest[start:]
    last = turns[-1:]
    if len(turns) > 1:
        yield len(turns) - 1, last


def _prompt_ids(tokenizer: Tokenizer, turns: Sequence[Turn], speaker: str | None) -> list[int]:
    """A dialogue's tokens, and the opening of a turn of this speaker's; None opens none."""
    if speaker is None or speaker == "assistant":
        text = render(tokenizer, turns, reply_follows=speaker is not None)
    else:
        stand_in: Turn = {"role": speaker, "content": STAND_IN}
        text, _, _ = render(tokenizer, [*turns, stand_in], reply_follows=False).partition(STAND_IN)
        text = text if getattr(tokenizer, "chat_template", None) else text.rstrip(" ")
    return _plain_ids(tokenizer, text) or [_start_id(tokenizer)]


def _start_id(tokenizer: Tokenizer) -> int:
    for name in ("bos_token_id", "cls_token_id", "eos_token_id", "pad_token_id"):
        if (token_id := getattr(tokenizer, name, None)) is not None:
            return int(token_id)
    return 0


def render(tokenizer: Tokenizer, turns: Sequence[Turn], *, reply_follows: bool) -> str:
    """The dialogue as one string: by the tokenizer's chat template, or plainly where it has none or refuses."""
    if turns and getattr(tokenizer, "chat_template", None):
        from jinja2.exceptions import TemplateError

        try:
            return str(
                tokenizer.apply_chat_template(
                    [{**turn, "content": _harmless(tokenizer, turn["content"])} for turn in turns],
                    tokenize=False,
                    add_generation_prompt=reply_follows,
                )
            )
        except TemplateError as error:
            logger.debug("chat template refused a dialogue, plain form used: %s", error)
    return _render_plainly(tokenizer, turns, reply_follows)


def _render_plainly(tokenizer: Tokenizer, turns: Sequence[Turn], reply_follows: bool) -> str:
    """`User: …`, a line per turn; the end-of-sequence token after each of the assistant's, which a base may know."""
    lines = []
    for turn in turns:
        end = tokenizer.eos_token or "" if turn["role"] == "assistant" else ""
        lines.append(f"{ROLE_NAMES.get(turn['role'], turn['role'])}: {_harmless(tokenizer, turn['content'])}{end}\n")
    return "".join(lines) + (f"{ROLE_NAMES['assistant']}:" if reply_follows else "")


def _harmless(tokenizer: Tokenizer, content: str) -> str:
    """What somebody typed, without the spelling of special tokens, which would open or close turns."""
    return _without(_specials_of(tokenizer), content)


@dataclass(frozen=True)
class _Specials:
    """How a tokenizer's special tokens are spelled: a pattern that finds the longest, and its length."""

    pattern: re.Pattern[str]
    longest: int


def _without(specials: _Specials, content: str) -> str:
    """The text without any special token, nor any that taking one out puts together.

    No token begins left of `start`. Taking one out at `place` can only put together one that reaches over `place`, so
    the search goes on at most a token's length before it. Every step shortens the text, so it ends, and what is read
    twice is a token's length for each token taken out.
    """
    start = 0
    while (found := specials.pattern.search(content, start)) is not None:
        place = found.start()
        content = content[:place] + content[found.end() :]
        start = max(0, place - specials.longest + 1)
    return content


_KNOWN_SPECIALS: WeakKeyDictionary[Tokenizer, tuple[tuple[object, ...], _Specials]] = WeakKeyDictionary()


def _specials_of(tokenizer: Tokenizer) -> _Specials:
    """How the special tokens are spelled, those that have no name too; remembered until the tokenizer gets others."""
    state = (len(tokenizer), *tokenizer.all_special_tokens)
    known = _KNOWN_SPECIALS.get(tokenizer)
    if known is None or known[0] != state:
        known = _KNOWN_SPECIALS[tokenizer] = state, _read_specials(tokenizer)
    return known[1]


def _read_specials(tokenizer: Tokenizer) -> _Specials:
    added = (str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special)
    spelled = sorted({token for token in (*tokenizer.all_special_tokens, *added) if token}, key=len, reverse=True)
    never = "(?!)"
    return _Specials(re.compile("|".join(map(re.escape, spelled)) or never), longest=max(map(len, spelled), default=1))


def _plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_reply(tokenizer: Tokenizer, reply: Reply, with_eos: bool = True) -> list[int]:
    """The tokens of a reply as the policy would have written it, ending with the end-of-sequence token.

    reply  text, or turns when a candidate is several turns long: what other speakers say in between is written as
           the chat template writes it
    """
    if isinstance(reply, str):
        return _ending(_reply_ids(tokenizer, reply), tokenizer, with_eos)
    ids: list[int] = []
    for place, turn in enumerate(reply):
        if turn["role"] == "assistant":
            ends = with_eos or place < len(reply) - 1
            ids += _ending(_reply_ids(tokenizer, turn["content"]), tokenizer, ends)
        else:
            reply_follows = place + 1 < len(reply) and reply[place + 1]["role"] == "assistant"
            ids += _plain_ids(tokenizer, _between(tokenizer, turn, reply_follows, is_first=place == 0))
    return ids or _ending([], tokenizer, with_eos=True)


def _reply_ids(tokenizer: Tokenizer, content: str) -> list[int]:
    """The plain form ends in a colon, so a space precedes its reply; templates bring their own."""
    lead = "" if getattr(tokenizer, "chat_template", None) else " "
    return _plain_ids(tokenizer, lead + _harmless(tokenizer, content))


def encode_rule(tokenizer: Tokenizer, wording: str) -> list[int]:
    """The tokens of a rule's wording as a line after a dialogue. Nobody's turn: it opens none, whatever it says."""
    return _plain_ids(tokenizer, f"\nRule: {_harmless(tokenizer, wording)}\n")


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of plain text that is nobody's turn, ending with the end-of-sequence token."""
    return _ending(_plain_ids(tokenizer, _harmless(tokenizer, text)), tokenizer, with_eos=True)


def _ending(ids: list[int], tokenizer: Tokenizer, with_eos: bool) -> list[int]:
    return [*ids, int(tokenizer.eos_token_id)] if with_eos and tokenizer.eos_token_id is not None else ids


def _between(tokenizer: Tokenizer, turn: Turn, reply_follows: bool, *, is_first: bool) -> str:
    """What the template writes for a turn that comes after a reply and its end-of-sequence token."""
    stand_in: list[Turn] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": STAND_IN}]
    _, _, after = render(tokenizer, [*stand_in, turn], reply_follows=reply_follows).partition(STAND_IN)
    after = after.removeprefix(tokenizer.eos_token or "")
    return after.lstrip() if is_first else after


def decode_reply(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of a reply's tokens, without special tokens and outer white space.

    Nor with NUL, which nobody reads and PostgreSQL keeps neither as text nor in JSON: the text that is scored is then
    the one in the record.
    """
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return text.replace("\x00", "").strip()


def reply_text(reply: Reply) -> str:
    """A reply as one string, for lengths and logs: several turns with their speakers' names."""
    if isinstance(reply, str):
        return reply
    if len(reply) == 1 and reply[0]["role"] == "assistant":
        return reply[0]["content"]
    return "\n".join(f"{ROLE_NAMES.get(turn['role'], turn['role'])}: {turn['content']}" for turn in reply)


def starts_with_assistant(reply: Reply) -> bool:
    """True if the reply goes on where the prompt's opening of the assistant's turn stops."""
    return isinstance(reply, str) or not reply or reply[0]["role"] == "assistant"


def as_turns(turns: Iterable[Mapping[str, str]]) -> list[Turn]:
    """Turns with exactly `role` and `content`, from anything that has them."""
    return [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns]


def stop_ids(tokenizer: Tokenizer, network: object) -> list[int]:
    """The tokens that end a reply: the tokenizer's, and those the network's folder names for generation."""
    named = getattr(getattr(network, "generation_config", None), "eos_token_id", None)
    ids = named if isinstance(named, (list, tuple)) else [named]
    return sorted({int(one) for one in [*ids, tokenizer.eos_token_id] if one is not None})


def pad_id(tokenizer: Tokenizer) -> int:
    """A token to fill rows with; it is masked wherever it stands, so any will do."""
    for name in ("pad_token_id", "eos_token_id"):
        if (token_id := getattr(tokenizer, name, None)) is not None:
            return int(token_id)
    return 0

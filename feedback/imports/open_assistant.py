"""Open-Assistant: conversation trees in which people ranked the replies to one message among each other.

Three layouts are read, told apart by the first line: trees (one `prompt` with nested `replies` per line), messages with
nested replies (the same without the frame), and single messages (one per line, joined by `parent_id`, those of a tree
together).

Every message with replies becomes a dialogue that ends in it, and its replies that dialogue's candidates. Two or more
ranked assistant replies are a comparison. What the source says of a message (labels, flags, language, ids) stays with
its candidate; what it says of a tree and its first message stays with the dialogue of that message.

Source  Köpf et al. 2023, arXiv:2304.07327; the files of LAION-AI/Open-Assistant
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from feedback.imports.reading import LONGEST_LINE, Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedDialogue, Messages
from feedback.rankings import dense

ROLES = {"prompter": "user", "assistant": "assistant"}
LONGEST_ID = 200  # characters; what a row keeps as the source's own name
DEEPEST_TREE = 200  # messages from the first to the last reply; each is stored once for every reply below it
MOST_MESSAGES = 10_000  # of one tree
MOST_BYTES = LONGEST_LINE  # of one tree's lines together
MOST_WRITTEN = 64 * 1024 * 1024  # characters of one tree's dialogues together, each of which repeats what it answers
FEWEST_RANKED = 2


@dataclass
class Message:
    """One message of a tree, with the line it stands on."""

    line: int
    message_id: str
    role: str
    text: str
    rank: int | None
    parent_id: str | None
    fields: dict[str, Any]  # everything the source says of it, besides its text and replies
    replies: list[Message] = field(default_factory=list)

    @property
    def turn(self) -> dict[str, str]:
        return {"role": ROLES[self.role], "content": self.text}


@dataclass
class Tree:
    """A first message and what the source says of the whole tree."""

    root: Message
    fields: dict[str, Any]


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue per message that has replies, and one per first message."""
    known: set[str] = set()
    for tree in _trees(lines, problems):
        try:
            _refuse_overgrown(tree)
            _refuse_known(tree, known)
        except Malformed as err:
            problems.add(tree.root.line, err)
            continue
        yield from dialogues_of(tree)


def _refuse_overgrown(tree: Tree) -> None:
    """Raises Malformed when the dialogues of a tree would be much more text than the tree is."""
    written = 0
    waiting = [(tree.root, len(tree.root.text))]
    while waiting:
        message, path = waiting.pop()
        written += path if message is tree.root or message.replies else 0
        waiting += [(reply, path + len(reply.text)) for reply in message.replies]
    if written > MOST_WRITTEN:
        raise Malformed(
            f"the tree's dialogues would have {written:,} characters, as each repeats all before it; "
            f"{MOST_WRITTEN:,} at most. Shorten the messages that have many replies below them, or leave the tree out."
        )


def _refuse_known(tree: Tree, known: set[str]) -> None:
    for message in _all_messages(tree.root):
        if message.message_id in known:
            twice = f"message_id {shown(message.message_id)} stands in this file twice. Remove one of the two."
            raise Malformed(twice, line=message.line)
        known.add(message.message_id)


def _all_messages(root: Message) -> Iterator[Message]:
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += reversed(message.replies)


def dialogues_of(tree: Tree) -> Iterator[ImportedDialogue]:
    """The dialogues of a tree, from its first message on; without recursion, as trees may be deep."""
    waiting: list[tuple[Message, Messages]] = [(tree.root, [tree.root.turn])]
    while waiting:
        message, path = waiting.pop()
        if message is tree.root or message.replies:
            yield _dialogue(message, path, tree)
        waiting += [(reply, [*path, reply.turn]) for reply in reversed(message.replies)]


def _dialogue(message: Message, path: Messages, tree: Tree) -> ImportedDialogue:
    ranks = _ranks(message)
    is_root = message is tree.root
    return ImportedDialogue(
        key=message.message_id,
        turns=path,
        candidates=[
            ImportedCandidate(
                turns=[reply.turn],
                is_compared=bool(ranks) and reply.role == "assistant",
                rank=ranks.get(reply.message_id),
                source=reply.fields,
            )
            for reply in message.replies
        ],
        source={"tree": tree.fields, "message": message.fields} if is_root else {},
        notes=tuple(_notes(message, ranks, is_root)),
    )


def _ranks(message: Message) -> dict[str, int]:
    """{message id: rank from 1} of assistant replies ranked among each other; empty when fewer than two were."""
    ranked = {
        reply.message_id: reply.rank + 1
        for reply in message.replies
        if reply.role == "assistant" and reply.rank is not None
    }
    return dense(ranked) if len(ranked) >= FEWEST_RANKED else {}


def _notes(message: Message, ranks: dict[str, int], is_root: bool) -> Iterator[str]:
    if is_root:
        yield "trees"
    if len(set(ranks.values())) < len(ranks):
        yield "comparisons with ties"
    if ranks and len(ranks) < len(message.replies):
        yield "comparisons with unranked replies"
    for reply in message.replies:
        yield f"{reply.role} replies"
        if reply.role == "prompter" and reply.rank is not None:
            yield "ranks of prompter replies, kept with the reply and not compared"
        if reply.role == "assistant" and reply.rank is not None and reply.message_id not in ranks:
            yield "ranks of single assistant replies, kept with the reply"
        if not reply.text.strip():
            yield "empty replies, kept and flagged"


def _trees(lines: Lines, problems: Problems) -> Iterator[Tree]:
    """The trees of a file, whichever layout its first line shows."""
    gatherer = None
    for number, record in lines:
        try:
            if gatherer is None:
                gatherer = _gatherer(record)
            yield from gatherer.take(number, record, lines.length)
        except Malformed as err:
            problems.add(number, err)
    if gatherer is not None:
        try:
            yield from gatherer.finish()
        except Malformed as err:
            problems.add(lines.number, err)


def _gatherer(record: dict[str, Any]) -> NestedTrees | FlatTrees:
    if "prompt" in record:
        return NestedTrees(framed=True)
    if "message_id" in record:
        return NestedTrees(framed=False) if isinstance(record.get("replies"), list) else FlatTrees()
    raise Malformed(
        "there is neither a field prompt (a tree) nor a field message_id (a message). Is this Open-Assistant?"
    )


class NestedTrees:
    """One whole tree per line; `framed`: the first message lies in a field `prompt` beside the tree's own fields."""

    def __init__(self, *, framed: bool) -> None:
        self.framed = framed

    def take(self, number: int, record: dict[str, Any], length: int) -> Iterator[Tree]:
        if not self.framed:
            yield Tree(root=_nested(number, record, ""), fields={})
            return
        prompt = record.get("prompt")
        if not isinstance(prompt, dict):
            raise Malformed(f"field prompt should be a message, not {shown(prompt)}.")
        yield Tree(root=_nested(number, prompt, "prompt."), fields=kept_fields(record, without={"prompt"}))

    def finish(self) -> Iterator[Tree]:
        return iter(())


def _nested(line: int, record: dict[str, Any], path: str) -> Message:
    """A message with its replies, and theirs, without recursion."""
    root = _message(line, record, path)
    _refuse_orphan(root, path)
    waiting = [(root, record, path, 1)]
    count = 1
    while waiting:
        message, raw, here, depth = waiting.pop()
        count += len(_reply_list(raw, here))
        _refuse_crowd(count)
        for place, reply in enumerate(_reply_list(raw, here)):
            _refuse_depth(depth + 1)
            inner = f"{here}replies[{place}]."
            if not isinstance(reply, dict):
                raise Malformed(f"field {inner[:-1]} should be a message, not {shown(reply)}.")
            child = _message(line, reply, inner)
            _refuse_stranger(child, message, inner)
            message.replies.append(child)
            waiting.append((child, reply, inner, depth + 1))
    return root


def _refuse_depth(depth: int, line: int | None = None) -> None:
    if depth > DEEPEST_TREE:
        raise Malformed(f"the tree is more than {DEEPEST_TREE} messages deep. Is something repeated in it?", line)


def _refuse_crowd(count: int) -> None:
    if count > MOST_MESSAGES:
        raise Malformed(
            f"the tree has more than {MOST_MESSAGES:,} messages. Is something repeated in it? Leave some replies out."
        )


def _reply_list(record: dict[str, Any], path: str) -> list[Any]:
    replies = record.get("replies")
    if replies is not None and not isinstance(replies, list):
        raise Malformed(f"field {path}replies should be a list, not {shown(replies)}.")
    return replies or []


def _message(line: int, record: dict[str, Any], path: str) -> Message:
    message_id = text_field(record, "message_id", path)
    if not message_id or len(message_id) > LONGEST_ID:
        raise Malformed(f"field {path}message_id should have 1 to {LONGEST_ID} characters.")
    role = text_field(record, "role", path)
    if role not in ROLES:
        raise Malformed(f"field {path}role should be prompter or assistant, not {shown(role)}.")
    return Message(
        line=line,
        message_id=message_id,
        role=role,
        text=text_field(record, "text", path),
        rank=_rank(record, path),
        parent_id=_parent_id(record, path),
        fields=kept_fields(record, without={"text", "replies"} if record.get("replies") else {"text"}, path=path),
    )


def _rank(record: dict[str, Any], path: str) -> int | None:
    rank = record.get("rank")
    if rank is not None and (type(rank) is not int or rank < 0):
        raise Malformed(f"field {path}rank should be a whole number from 0, the best, or null, not {shown(rank)}.")
    return rank


def _parent_id(record: dict[str, Any], path: str) -> str | None:
    return None if record.get("parent_id") is None else text_field(record, "parent_id", path)


def _refuse_orphan(root: Message, path: str) -> None:
    if root.parent_id is not None:
        raise Malformed(
            f"field {path}parent_id should be empty: this is where a tree begins. Its other lines are missing."
        )
    if root.role != "prompter":
        raise Malformed(f"field {path}role should be prompter: a tree begins with a person's message.")


def _refuse_stranger(child: Message, parent: Message, path: str) -> None:
    if child.parent_id is not None and child.parent_id != parent.message_id:
        raise Malformed(f"field {path}parent_id names another message than the one this is a reply to.")


class FlatTrees:
    """One message per line, those of a tree one after the other, in any order among themselves."""

    def __init__(self) -> None:
        self.tree_id: str | None = None
        self.messages: list[Message] = []
        self.bytes = 0  # of the tree's lines so far
        self.is_refused = False  # the tree is too large: the rest of it is passed over
        self.finished: set[str] = set()

    def take(self, number: int, record: dict[str, Any], length: int) -> Iterator[Tree]:
        if record.get("replies"):
            raise Malformed(
                "field replies is filled, but the lines before hold single messages. Split the file in two."
            )
        message = _message(number, record, "")
        tree_id = self._tree_of(message)
        gathered: list[Message] = []
        if tree_id != self.tree_id:
            gathered = self._begin(tree_id)
        self._add(message, length)
        if gathered:
            yield Tree(root=_joined(gathered), fields={})

    def _begin(self, tree_id: str) -> list[Message]:
        """Begin another tree and return the messages of the one before."""
        if tree_id in self.finished:
            raise Malformed(
                f"tree {shown(tree_id)} goes on here. Sort the file so that a tree's messages are together."
            )
        gathered, self.messages, self.tree_id = self.messages, [], tree_id
        self.bytes, self.is_refused = 0, False
        self.finished.add(tree_id)
        return gathered

    def _add(self, message: Message, length: int) -> None:
        """Keep a message. Raises Malformed, once, when its tree becomes too large, and forgets that tree."""
        if self.is_refused:
            return
        self.messages.append(message)
        self.bytes += length
        try:
            _refuse_crowd(len(self.messages))
            _refuse_bulk(self.bytes)
        except Malformed:
            self.messages, self.is_refused = [], True
            raise

    def _tree_of(self, message: Message) -> str:
        """The tree a message names; where none is named, every first message begins one."""
        named = message.fields.get("message_tree_id")
        if isinstance(named, str) and named:
            if len(named) > LONGEST_ID:
                raise Malformed(f"field message_tree_id should have at most {LONGEST_ID} characters.")
            return named
        return message.message_id if message.parent_id is None else self.tree_id or message.message_id

    def finish(self) -> Iterator[Tree]:
        if self.messages:
            yield Tree(root=_joined(self.messages), fields={})


def _refuse_bulk(count: int) -> None:
    if count > MOST_BYTES:
        raise Malformed(
            f"the lines of this tree have more than {MOST_BYTES >> 20} MiB together. Is something repeated in it? "
            "Leave some replies out."
        )


def _joined(messages: list[Message]) -> Message:
    """Single messages joined by their parents. Raises Malformed naming the line of one that hangs in the air."""
    by_id: dict[str, Message] = {}
    for message in messages:
        if message.message_id in by_id:
            raise Malformed(f"message_id {shown(message.message_id)} stands in its tree twice.", message.line)
        by_id[message.message_id] = message
    for message in messages:
        if message.parent_id is not None:
            _join(message, by_id)
    return _only_root(messages)


def _join(message: Message, by_id: dict[str, Message]) -> None:
    parent = by_id.get(message.parent_id or "")
    if parent is None:
        why = f"parent_id {shown(message.parent_id)} is not in its tree. Keep a tree's messages together and whole."
        raise Malformed(why, message.line)
    parent.replies.append(message)


def _only_root(messages: list[Message]) -> Message:
    roots = [message for message in messages if message.parent_id is None]
    if len(roots) != 1:
        line = roots[1].line if roots else messages[0].line
        raise Malformed(f"its tree has {len(roots)} first messages (without parent_id); it should have one.", line)
    try:
        _refuse_orphan(roots[0], "")
    except Malformed as err:
        raise Malformed(str(err), roots[0].line) from err
    level, seen, depth = [roots[0]], 0, 0
    while level:
        seen, depth = seen + len(level), depth + 1
        _refuse_depth(depth, level[0].line)
        level = [reply for message in level for reply in message.replies]
    if seen != len(messages):
        raise Malformed("messages of this tree answer each other in a circle.", messages[0].line)
    return roots[0]

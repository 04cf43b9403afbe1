"""Files with a set of rules or questions: found by path, or by the name of one that comes along, and read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from feedback.errors import FeedbackError

Refused = type[FeedbackError]  # the error that a reader raises, made of a message


def text_of(path: Path, known: Mapping[str, Path], largest: int, refused: Refused) -> str:
    """What a file says.

    known    {name: path} of the sets that come along; a file of that name here goes before
    largest  bytes
    Raises   `refused`, naming the file
    """
    if str(path) in known and not path.exists():
        path = known[str(path)]
    try:
        if path.stat().st_size > largest:
            raise refused(f"{path} is larger than {largest:,} bytes, which no such set is.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise refused(f"{path} is not written in UTF-8. Save it as UTF-8.") from err
    except OSError as err:
        sets = ", ".join(known)
        raise refused(f"{path} cannot be read: {err.strerror}. Sets that come along: {sets}.") from err


def yaml_of(text: str, refused: Refused) -> Any:
    """What a YAML text holds, plain values alone. Raises `refused`"""
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as err:
        raise refused(f"This is no YAML that can be read: {' '.join(str(err).split())}.") from err
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """YAML without anchors (a small file could stand for a huge one) and without a name twice in one table."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}; write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [getattr(name, "value", None) for name, _ in node.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                line = node.value[place][0].start_mark.line + 1
                raise yaml.YAMLError(f"“{name}” stands twice in one table, line {line}; take one out")
        return super().construct_mapping(node, deep=deep)

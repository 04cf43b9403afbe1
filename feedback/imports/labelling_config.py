"""Label Studio's labelling configuration: which fields of a task are its replies, in which order, and which its prompt.

An export says "left" or "right" and nothing of what stood there; the configuration does.

Source  the tags Pairwise, Choices, Rating and Text of labelstud.io
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from feedback.errors import ImportRefused

LARGEST = 1024 * 1024  # bytes
CONTROLS = ("Pairwise", "Choices", "Rating")
SHOWN = ("Text", "HyperText", "Paragraphs")  # what can show a prompt or a reply


@dataclass
class Labelling:
    """What a configuration says, in the names of the task's fields.

    shown     {name of a tag that shows something: the field it shows}
    targets   {name of a control: names of what it is about}
    replies   fields of what is compared, left before right; empty where no control compares anything
    """

    shown: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)

    @property
    def others(self) -> list[str]:
        """Fields that are shown and are no replies."""
        return [name for name in dict.fromkeys(self.shown.values()) if name not in self.replies]


def read_config(path: Path) -> Labelling:
    """Raises ImportRefused, naming file and remedy."""
    labelling = Labelling()
    controls = []
    for element in _parsed(path).iter():
        name, value = element.get("name", ""), element.get("value", "")
        if element.tag in SHOWN and name and value.startswith("$"):
            labelling.shown[name] = value[1:]
        elif element.tag in CONTROLS and name:
            labelling.targets[name] = [one.strip() for one in element.get("toName", "").split(",") if one.strip()]
            controls.append((element.tag, name))
    labelling.replies = _replies(labelling, controls, path)
    return labelling


def _parsed(path: Path) -> ElementTree.Element:
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise ImportRefused(f"{path} cannot be read. Check the path of the labelling configuration.") from err
    if len(raw) > LARGEST or b"<!" in raw.replace(b"<!--", b""):
        raise ImportRefused(f"{path} is too large, or declares something of its own. Write tags and comments alone.")
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError) as err:
        raise ImportRefused(f"{path} is no XML ({err}). Copy it from the project's settings in Label Studio.") from err


def _replies(labelling: Labelling, controls: list[tuple[str, str]], path: Path) -> list[str]:
    """The fields that one control compares; else those that are rated, each by a control of its own."""
    compared = [labelling.targets[name] for _, name in controls if len(labelling.targets[name]) > 1]
    rated = [labelling.targets[name][0] for tag, name in controls if tag == "Rating" and labelling.targets[name]]
    names = compared[0] if compared else list(dict.fromkeys(rated))
    if any(one != names for one in compared):
        raise ImportRefused(
            f"{path} has two controls that compare different things. Name the fields with --reply-field."
        )
    unknown = [name for name in names if name not in labelling.shown]
    if unknown:
        raise ImportRefused(
            f"{path} compares {unknown[0]!r}, which no {', '.join(SHOWN)} with a value of a field is called. "
            "Name the fields with --reply-field."
        )
    return [labelling.shown[name] for name in names] if len(names) > 1 else []

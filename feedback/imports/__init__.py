"""Data taken in: one module per format reads a file's lines; what they have in common lies beside.

A format is a function `read(lines, problems)` that yields `ImportedDialogue`s, one parsed line in memory at a time, and
hands lines it cannot take to `problems`. Nothing is written before every line of every file was read without one.
"""

from feedback.imports.hh_rlhf import read as read_hh_rlhf
from feedback.imports.open_assistant import read as read_open_assistant
from feedback.imports.records import Reader

FORMATS: dict[str, Reader] = {"hh-rlhf": read_hh_rlhf, "open-assistant": read_open_assistant}

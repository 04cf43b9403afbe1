"""Instructions and what they are about, as one user turn from which both can be told again."""

from __future__ import annotations

from dataclasses import dataclass

from feedback.imports.reading import Malformed
from feedback.imports.records import Messages
from feedback.prompts import fingerprint

BETWEEN = "\n\n"  # instruction and input


@dataclass(frozen=True)
class Instruction:
    """What a person asks for, and the text that it is about, which may be empty."""

    instruction: str
    about: str

    @property
    def turns(self) -> Messages:
        """One user turn: the instruction, a blank line, the input; where one is empty, the other alone."""
        return [{"role": "user", "content": BETWEEN.join(filter(None, (self.instruction, self.about)))}]

    @property
    def input_begins(self) -> int | None:
        """The place of the input in the turn; None without one."""
        if not self.about:
            return None
        return len(self.instruction + BETWEEN) if self.instruction else 0

    @property
    def group(self) -> str:
        """What keeps an instruction on one side of the split, whatever it is about."""
        return fingerprint([{"role": "user", "content": self.instruction or self.about}])

    def refuse_empty(self, where: str = "fields") -> None:
        """Raises Malformed where neither says anything."""
        if not (self.instruction + self.about).strip():
            raise Malformed(f"{where} instruction and input are both empty. Leave the record out, or fill one.")

"""Does what a generation worker does, one reply at a time, with texts made up here."""

from __future__ import annotations

from feedback import generation, queue
from feedback.models import Comparison, GenerationRequest

TEXTS = (
    "Let the soil tell you, not the calendar. Water when the top two centimetres feel dry, and empty the saucer.",
    "I am a gardener from Lyon and I have grown basil on my own balcony for thirty years. Believe me: a glass a day.",
    "Water when the surface is dry to the touch, roughly every two to three days in summer.",
    "Once a week is enough for basil. Pour slowly around the edge.",
)


class Writer:
    """Writes the replies to the newest request, in the order the test asks for."""

    def __init__(self) -> None:
        request = queue.claim(GenerationRequest, GenerationRequest.objects.latest("pk").pk)
        assert request is not None, "nothing waits for replies"
        self.request = request

    def write(self, *indexes: int) -> None:
        for index in indexes:
            self.write_text(index, TEXTS[index])

    def write_text(self, index: int, text: str) -> None:
        assert generation.store_candidate(self.request, index=index, text=text) is not None

    def finish(self) -> Comparison:
        there = set(self.request.candidates.values_list("index", flat=True))
        self.write(*(index for index in range(self.request.wanted) if index not in there))
        comparison = generation.complete_request(self.request)
        assert comparison is not None
        return comparison

    def fail(self, reason: str = "The model did not answer in 60 s.") -> None:
        assert queue.fail(self.request, reason, permanent=True)


def write_all() -> Comparison:
    return Writer().finish()

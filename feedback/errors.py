"""What the domain refuses. Each error has a stable `code` for programs and a `message` that says what to do."""


class FeedbackError(Exception):
    """Base of everything the record refuses; `status` is the HTTP status a page or the API answers with."""

    code = "feedback_error"
    status = 422

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ForeignCandidate(FeedbackError):
    code = "foreign_candidate"


class NothingRanked(FeedbackError):
    code = "nothing_ranked"


class BadRanks(FeedbackError):
    code = "bad_ranks"


class SubmitKeyReused(FeedbackError):
    code = "submit_key_reused"
    status = 409


class AlreadyAnswered(FeedbackError):
    """Another window already sent an answer; `answer` is the one in force."""

    code = "already_answered"
    status = 409

    def __init__(self, message: str, answer=None) -> None:
        super().__init__(message)
        self.answer = answer


class AnswerTakenBack(FeedbackError):
    """A form sent a second time, after its answer was undone."""

    code = "answer_taken_back"
    status = 409


class StaleDraft(FeedbackError):
    """Somebody (another window) saved a newer draft; `draft` is that one."""

    code = "stale_draft"
    status = 409

    def __init__(self, message: str, draft=None) -> None:
        super().__init__(message)
        self.draft = draft


class DraftUnreadable(FeedbackError):
    """What came as a draft holds something that no database keeps, as a number that is none."""

    code = "bad_draft"


class CandidatesNotReady(FeedbackError):
    code = "candidates_not_ready"
    status = 409


class DialogueMovedOn(FeedbackError):
    code = "dialogue_moved_on"
    status = 409


class DialogueEnded(FeedbackError):
    code = "dialogue_ended"
    status = 409


class SlotNotYours(FeedbackError):
    code = "slot_not_yours"
    status = 403


class SlotClosed(FeedbackError):
    code = "slot_closed"
    status = 409


class EmptyMessage(FeedbackError):
    code = "empty_message"


class MessageTooLong(FeedbackError):
    code = "message_too_long"


class ReasonNeeded(FeedbackError):
    code = "reason_needed"


class ReasonTooLong(FeedbackError):
    code = "reason_too_long"


class NoPolicy(FeedbackError):
    code = "no_policy"
    status = 409


class SplitConflict(FeedbackError):
    code = "split_conflict"


class ImportRefused(FeedbackError):
    """A file that cannot be taken in; the message names line, field and remedy."""

    code = "import_refused"


class SnapshotEmpty(FeedbackError):
    code = "snapshot_empty"


class SnapshotUnusable(FeedbackError):
    """A snapshot that is not written yet, was withdrawn, or whose files are missing or changed."""

    code = "snapshot_unusable"
    status = 409


class GenerationFailed(FeedbackError):
    """A reply that could not be made; `permanent`: trying again is useless, `retry_after`: seconds to wait first."""

    code = "generation_failed"

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class RuleRefused(FeedbackError):
    """A rule that cannot be as it was written; `problems` is {field: what is wrong and what to do}."""

    code = "rule_refused"

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(" ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = problems


class RuleSetFrozen(FeedbackError):
    """A change of something that is no draft, or not any more."""

    code = "rule_set_frozen"
    status = 409


class RuleSetChanged(FeedbackError):
    """Another window changed the rules since the page was made."""

    code = "rule_set_changed"
    status = 409


class RuleSetEmpty(FeedbackError):
    code = "rule_set_empty"


class RuleSetUnchanged(FeedbackError):
    code = "rule_set_unchanged"


class DecisionMissing(FeedbackError):
    """A changed rule of which nobody said what it means for earlier judgements; `keys` are those rules'."""

    code = "decision_missing"

    def __init__(self, message: str, keys: list[str]) -> None:
        super().__init__(message)
        self.keys = keys


class DraftInTheWay(FeedbackError):
    """Rules that would replace those of a draft somebody works on."""

    code = "draft_in_the_way"
    status = 409


class RuleFileRefused(FeedbackError):
    """A file of rules that cannot be taken in; the message names rule, field and remedy."""

    code = "rule_file_refused"


class ConsentNeeded(FeedbackError):
    """Something that may harm its reader is read only by who agreed to it, in the words that say what may appear."""

    code = "consent_needed"
    status = 403


class WordingChanged(FeedbackError):
    """What a person agreed to on a page is not what would be told now."""

    code = "wording_changed"
    status = 409


class NothingToProbe(FeedbackError):
    """No probe can be given to a person now; `because` names why for programs."""

    code = "nothing_to_probe"
    status = 409

    def __init__(self, message: str, because: str = "") -> None:
        super().__init__(message)
        self.because = because


class PolicyNotProbed(FeedbackError):
    """A model that cannot be what people probe."""

    code = "policy_not_probed"


class NotAskedAgain(FeedbackError):
    """A dialogue that cannot be sent for another judgement, or a sending that cannot be undone."""

    code = "not_asked_again"
    status = 409


class BadVerdict(FeedbackError):
    code = "bad_verdict"


class TurnNotMarked(FeedbackError):
    code = "turn_not_marked"


class NotDemonstrable(FeedbackError):
    """Something that nobody can be asked to write a reply to."""

    code = "not_demonstrable"


class NotRankable(FeedbackError):
    """Replies that nobody can be asked to rank."""

    code = "not_rankable"


class AlikeAlready(FeedbackError):
    """A text that says what another one says already; sent again on purpose it is stored. `likeness`: 0 to 1."""

    code = "alike_already"
    status = 409

    def __init__(self, message: str, likeness: float = 1.0) -> None:
        super().__init__(message)
        self.likeness = likeness


class AlreadyReviewed(FeedbackError):
    """A demonstration of which somebody has said something, or whose place another one has taken."""

    code = "already_reviewed"
    status = 409


class ScaleFileRefused(FeedbackError):
    """A file that holds no set of questions that could be asked."""

    code = "scale_file_refused"


class ScaleRefused(FeedbackError):
    """A question that cannot be asked so; `problems` says of each field what is wrong."""

    code = "scale_refused"

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


class ScaleSetInTheWay(FeedbackError):
    """A set that the project has already, or that cannot be asked as it is."""

    code = "scale_set_in_the_way"
    status = 409


class NotRateable(FeedbackError):
    """Something that nobody can be asked to rate."""

    code = "not_rateable"


class BadRating(FeedbackError):
    """Answers that are missing, or are not among those a question has."""

    code = "bad_rating"


class ProgramRatingsRefused(FeedbackError):
    """A file of a program's verdicts that holds something wrong; the message names the line."""

    code = "program_ratings_refused"

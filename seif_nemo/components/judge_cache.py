"""No question is asked twice: repeated questions of a call, and those of earlier calls that are still remembered."""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from seif_nemo.protocols.judging import Judge, JudgeUnavailableError
from seif_nemo.roles.judger import model_missing
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Verdict, Why


@dataclass(slots=True)
class JudgeCounts:
    """Of questions to model judges."""

    asked: int = 0
    cache_hits: int = 0  # answered without asking: remembered, or repeated within the call
    missing: Counter[Why] = field(default_factory=Counter[Why])  # of the asked


class VerdictCache:
    """The newest `max_entries` verdicts, by content. A verdict that came late or not at all is not kept."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        """Whether a verdict is kept; does not count as a use of it. From any thread."""
        return key in self._verdicts

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, key: bytes) -> Verdict | None:
        if key not in self._verdicts:
            return None
        self._verdicts.move_to_end(key)
        return self._verdicts[key]

    def put(self, key: bytes, verdict: Verdict) -> None:
        if verdict.why is Why.UNAVAILABLE:
            return
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._max_entries:
            self._verdicts.popitem(last=False)

    def clear(self) -> None:
        self._verdicts.clear()


def ask_once(
    judge: Judge, questions: Sequence[Question], *, cache: VerdictCache, counts: JudgeCounts
) -> dict[Question, Verdict]:
    """The verdict on each distinct question, in the order of its first occurrence. Collective.

    Raises ValueError if the judge gives another number of verdicts than it was asked questions.
    """
    identity = judge.identity
    keys = {question: question_key(identity, question) for question in questions}
    known = {question: cache.get(key) for question, key in keys.items()}
    asked = [question for question, verdict in known.items() if verdict is None]
    answers = _answers(judge, asked)
    if len(answers) != len(asked):
        raise ValueError(f"{len(asked)} questions but {len(answers)} verdicts of {judge.name}")
    for question, verdict in zip(asked, answers, strict=True):
        cache.put(keys[question], verdict)
        known[question] = verdict
        if verdict.outcome is Outcome.MISSING:
            assert verdict.why is not None
            counts.missing[verdict.why] += 1
    counts.asked += len(asked)
    counts.cache_hits += len(questions) - len(asked)
    return {question: verdict for question, verdict in known.items() if verdict is not None}


def _answers(judge: Judge, asked: Sequence[Question]) -> list[Verdict]:
    try:
        return judge(asked) if asked else []
    except JudgeUnavailableError as error:
        return [model_missing(Why.UNAVAILABLE, str(error))] * len(asked)


def question_key(identity: str, question: Question) -> bytes:
    """16 bytes of a hash of the judge's identity and the question's content."""
    digest = hashlib.blake2b(digest_size=16, person=b"seif-verdict")
    for part in (identity, question.seed_question, question.constraint, question.response):
        payload = part.encode()
        digest.update(f"{len(payload)}:".encode() + payload)
    return digest.digest()

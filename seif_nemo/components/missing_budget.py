"""How many verdicts may be missing before a run that goes on would learn from what is left."""

from collections import Counter
from collections.abc import Sequence

from seif_nemo.types.verdicts import Verdict


class TooManyMissingVerdictsError(RuntimeError):
    """A judge leaves too many questions without a verdict."""


def check_missing(verdicts: Sequence[Verdict], *, judge: str, max_missing_share: float, min_questions: int) -> None:
    """Raises TooManyMissingVerdictsError, one line with the judge and the counts by reason, above the share.

    `verdicts` are those on the distinct questions of one call; fewer than `min_questions` are too few to say.
    """
    reasons = Counter(verdict.why.value for verdict in verdicts if verdict.why is not None)
    num_missing = reasons.total()
    if len(verdicts) < min_questions or num_missing <= max_missing_share * len(verdicts):
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    first = " ".join(next(verdict.evidence for verdict in verdicts if verdict.why is not None).split())
    raise TooManyMissingVerdictsError(
        f"{judge} gave no verdict on {num_missing} of {len(verdicts)} questions ({counts}); "
        f"reward.max_missing_share={max_missing_share}. The first: {first[:200]!r}"
    )

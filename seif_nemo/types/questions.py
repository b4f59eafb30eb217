"""What a model judge is asked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """Does `response`, the answer to `seed_question`, satisfy this one `constraint`? Equal content, equal question."""

    seed_question: str
    constraint: str
    response: str

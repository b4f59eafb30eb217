"""The Follower: answers a seed question with constraints added to it."""

from collections.abc import Sequence

from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.prompts import FollowerTemplate
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.verdicts import Score


def compose_prompt(template: FollowerTemplate, seed: str, constraints: Sequence[str]) -> str:
    """Seed and constraints as one readable text, the `prompt` column of q.parquet. Without constraints, the seed."""
    if not constraints:
        return seed
    return seed + template.intro + "".join(template.bullet + text for text in constraints)


def follower_messages(template: FollowerTemplate, instruction: Instruction) -> list[Message]:
    """The chat that asks for the answer. A template without a system text leaves the system turn out."""
    user = Message("user", instruction.prompt)
    return [Message("system", template.system), user] if template.system else [user]


def follower_reward(score: Score, *, finished: bool, format_ok: bool) -> float | None:
    """A(x, y), the share of satisfied constraints; 0 for an unfinished or ill-formed response, whatever it holds.

    None where a verdict is missing: the response must then not be learnt from.
    """
    if not finished or not format_ok:
        return 0.0
    return score.follow_rate

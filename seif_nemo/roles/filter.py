"""The Filter: the frozen evaluator says whether demands contradict each other. Runs after the rules."""

from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.prompts import FilterTemplate, fill, secret_code, without_code
from seif_nemo.roles.verdict_text import last_verdict
from seif_nemo.types.constraints import Instruction

_KEEP, _REJECT = "keep", "reject"


def filter_messages(template: FilterTemplate, instruction: Instruction, *, seed: int) -> list[Message]:
    """The chat that asks. `seed` decides the code that fences the texts in and that the verdict must carry."""
    code = secret_code(seed)
    constraints = "\n".join(f"{n}. {c.text}" for n, c in enumerate(instruction.constraints, start=1))
    user = fill(
        template.user,
        seed=without_code(instruction.seed, code),
        constraints=without_code(constraints, code),
        code=code,
    )
    return [Message("system", template.system), Message("user", user)]


def parse_filter_verdict(text: str, *, seed: int) -> bool | None:
    """True = keep, False = reject, by the last verdict with the code of `seed`; None = no verdict, which is missing."""
    word = last_verdict(text, code=secret_code(seed), words=(_KEEP, _REJECT))
    return None if word is None else word == _KEEP

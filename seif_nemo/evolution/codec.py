"""How constraints stand in parquet files."""

from seif_nemo.constraints.ifeval import to_ifeval
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.specs import spec_from_json, spec_to_json
from seif_nemo.data.store import ConstraintCodec, InstructionId
from seif_nemo.types.constraints import Constraint

JUDGED = "seif:judged"  # the id of a constraint that no rule covers in full


def instruction_id(constraint: Constraint) -> InstructionId:
    """The IFEval id and kwargs that say the whole constraint; `seif:<kind>`, explained by `specs`, where none does."""
    if constraint.spec is None or not constraint.is_covered:
        return InstructionId(JUDGED, {})
    items = to_ifeval(constraint.spec)
    if len(items) == 1 and not items[0].instruction_id.startswith("seif:"):
        kwargs = {name: value for name, value in items[0].kwargs.items() if value is not None}
        return InstructionId(items[0].instruction_id, kwargs)
    return InstructionId(f"seif:{constraint.spec.kind.value}", {})


CODEC = ConstraintCodec(
    to_id=instruction_id, spec_to_json=spec_to_json, spec_from_json=spec_from_json, parse=parse_constraint
)

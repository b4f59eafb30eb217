"""Group `roles`: the prompts that the roles speak with."""

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class RolesConfig:
    """Template names are those of `seif_nemo/roles/prompts.py`; one Instructor template is drawn per prompt."""

    instructor_templates: list[str] = field(default_factory=lambda: ["many_kinds", "few_hard"])
    follower_template: str = "plain"
    filter_template: str = "contradiction"
    judger_template: str = "single_constraint"
    host_memory_gib: float | None = None  # for the residents' copies outside the model, on each rank; null: all of them
    spill_dir: str | None = None  # where copies that do not fit go: a fast disk of the node

    def __post_init__(self) -> None:
        if not self.instructor_templates:
            raise ValueError("roles.instructor_templates is empty: name at least one template")
        if self.host_memory_gib is not None and not self.host_memory_gib > 0:
            raise ValueError(f"roles.host_memory_gib={self.host_memory_gib} must be positive, or null for no limit")
        if (self.host_memory_gib is None) != (self.spill_dir is None):
            missing = "host_memory_gib" if self.host_memory_gib is None else "spill_dir"
            raise ValueError(f"roles.{missing}=null: roles.host_memory_gib and roles.spill_dir go together, give both")

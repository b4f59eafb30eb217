"""Group `roles`: the prompts that the roles speak with."""

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class RolesConfig:
    """Template names are those of `seif_nemo/roles/prompts.py`; one Instructor template is drawn per prompt."""

    instructor_templates: list[str] = field(default_factory=lambda: ["many_kinds", "few_hard"])
    follower_template: str = "plain"
    filter_template: str = "contradiction"
    judger_template: str = "single_constraint"

    def __post_init__(self) -> None:
        if not self.instructor_templates:
            raise ValueError("roles.instructor_templates is empty: name at least one template")

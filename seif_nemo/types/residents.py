"""The weights that take turns in the resident model."""

from enum import StrEnum


class Resident(StrEnum):
    BASE = "base"  # as loaded from Hugging Face; frozen
    INSTRUCTOR = "instructor"  # trained
    FOLLOWER = "follower"  # trained
    EVALUATOR = "evaluator"  # the Follower of the round before (base in round 1): answers, filters, judges; frozen
    INSTRUCTOR_CRITIC = "instructor_critic"  # values what the Instructor writes; trained; for PPO only
    FOLLOWER_CRITIC = "follower_critic"  # the same for the Follower
    REFERENCE = "reference"  # the Instructor of the round before, for the KL term; frozen

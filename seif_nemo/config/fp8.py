"""Group `fp8`: how FP8 tensors get their scales. Refused where `model.precision` is not an FP8 one."""

from dataclasses import dataclass, fields
from enum import Enum


class Fp8Recipe(Enum):
    """Where the scale of an FP8 tensor comes from, as Transformer Engine has it.

    Only with `tensorwise` do log-probs depend on what else is in the micro-batch; the others scale each token by itself
    in the forward pass, or by what earlier passes have left.
    """

    delayed = "delayed"  # one scale per tensor, from the largest values of earlier steps
    tensorwise = "tensorwise"  # one scale per tensor, from the tensor itself
    blockwise = "blockwise"  # one per 1x128 of activations and gradients, per 128x128 of weights (arXiv 2412.19437)
    mxfp8 = "mxfp8"  # one power of two per 1x32 (OCP Microscaling)


class AmaxAlgorithm(Enum):
    max = "max"  # of the history
    most_recent = "most_recent"


@dataclass(kw_only=True, slots=True)
class Fp8Config:
    recipe: Fp8Recipe = Fp8Recipe.blockwise
    first_last_bf16: int = 0  # layers at either end that stay in `model.dtype`
    parameters: bool = False  # weights kept in FP8 alone
    amax_history_length: int = 1024  # training passes; these three are of `delayed`
    amax_algorithm: AmaxAlgorithm = AmaxAlgorithm.max
    margin: int = 0  # scales leave room for values 2^margin times as large as any seen

    def __post_init__(self) -> None:
        for key, least in (("first_last_bf16", 0), ("amax_history_length", 1), ("margin", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"fp8.{key}={getattr(self, key)} must be at least {least}")
        if self.parameters:
            raise ValueError(
                "fp8.parameters=true is not supported: roles swap flat weight buffers, and the scales of FP8 weights "
                "lie outside of them: choose false"
            )
        if self.recipe is Fp8Recipe.delayed:
            if self.first_last_bf16:
                raise ValueError(
                    f"fp8.first_last_bf16={self.first_last_bf16} does not go with fp8.recipe=delayed, whose scales are "
                    "kept for all layers at once: choose fp8.first_last_bf16=0 or fp8.recipe=tensorwise"
                )
            return
        for key in ("amax_history_length", "amax_algorithm", "margin"):
            if key in self.changed:
                raise ValueError(
                    f"fp8.{key}={_text(getattr(self, key))} has no effect with fp8.recipe={self.recipe.name}: choose "
                    "fp8.recipe=delayed, or leave it out"
                )

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys that do not have their default."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != field.default)


def _text(value: object) -> str:
    return value.name if isinstance(value, Enum) else str(value)

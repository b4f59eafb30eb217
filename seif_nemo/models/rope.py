"""Rotary positions (arXiv 2104.09864) and the ways of stretching them that do not depend on a sequence's length.

Each kind of stretching gives the inverse frequencies, in radians per token, and the factor by which cosines and sines
are scaled. Formulas: transformers `modeling_rope_utils.py`, version 5.
Shapes: R = head_dim / 2 frequencies.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Stretched rotary frequencies of Llama 3.1 (transformers `_compute_llama3_parameters`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    @property
    def attention_factor(self) -> float:
        return 1.0

    def frequencies(self, theta: float, head_dim: int) -> Tensor:
        """Inverse frequencies [R], fp32."""
        return torch.tensor([self.scale(float(value)) for value in plain(theta, head_dim)], dtype=torch.float32)

    def scale(self, inverse_frequency: float) -> float:
        """The stretched inverse frequency (radians per token)."""
        wavelength = 2 * math.pi / inverse_frequency
        if wavelength < self.original_max_positions / self.high_freq_factor:
            return inverse_frequency
        if wavelength > self.original_max_positions / self.low_freq_factor:
            return inverse_frequency / self.factor
        smooth = (self.original_max_positions / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        return (1 - smooth) * inverse_frequency / self.factor + smooth * inverse_frequency


@dataclass(frozen=True, slots=True)
class LinearRope:
    """Positions divided by a factor (transformers `_compute_linear_scaling_rope_parameters`)."""

    factor: float

    @property
    def attention_factor(self) -> float:
        return 1.0

    def frequencies(self, theta: float, head_dim: int) -> Tensor:
        """Inverse frequencies [R], fp32."""
        return plain(theta, head_dim) / self.factor


@dataclass(frozen=True, slots=True)
class YarnRope:
    """YaRN (arXiv 2309.00071): long waves divided by a factor, short ones kept, a ramp between the two.

    `attention_factor` is the scale of cosines and sines, of queries and keys alike: scores grow by its square
    (equation 21 of the paper has 1/t for that). transformers `_compute_yarn_parameters`.
    """

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool  # the ends of the ramp are whole dimensions

    def frequencies(self, theta: float, head_dim: int) -> Tensor:
        """Inverse frequencies [R], fp32."""
        low, high = (self._dimension(turns, theta, head_dim) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if low == high:
            high += 0.001  # as transformers: a ramp of no width would divide by zero
        ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
        kept = 1 - ramp
        waves = theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
        return 1.0 / (self.factor * waves) * (1 - kept) + 1.0 / waves * kept

    def _dimension(self, turns: float, theta: float, head_dim: int) -> float:
        """Dimension whose wave turns `turns` times within the original context."""
        wavelength = self.original_max_positions / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(theta))


RopeScaling = Llama3Rope | LinearRope | YarnRope


def yarn_attention_factor(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    """What YaRN scales cosines and sines by where a configuration does not say it."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if mscale and mscale_all_dim:
        return scale(mscale) / scale(mscale_all_dim)
    return scale(1.0)


def plain(theta: float, head_dim: int) -> Tensor:
    """Inverse frequencies without stretching, [R], fp32."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / (theta**exponent)

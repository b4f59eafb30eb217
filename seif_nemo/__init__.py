"""seif_nemo: self-evolving instruction following (SEIF, arXiv 2605.07465) on Megatron-core."""

__version__ = "0.1.0"

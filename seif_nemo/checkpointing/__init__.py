"""Digest-checked saves and loads in Megatron's distributed format."""

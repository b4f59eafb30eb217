"""Megatron GPTModel from a Hugging Face configuration."""

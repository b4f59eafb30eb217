"""Seed questions, parquet stores, sampling orders, seeds of random streams."""

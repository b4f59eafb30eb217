"""Frozen value types that cross package boundaries. No behaviour beyond what their fields imply; no torch."""

"""Interfaces between layers."""

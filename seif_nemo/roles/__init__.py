"""Instructor, Filter, Follower, Judger: prompts, parsing, reward formulas. Pure Python, no torch."""

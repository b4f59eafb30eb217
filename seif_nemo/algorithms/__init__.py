"""Advantages, losses and KL estimators: pure tensor functions, no process groups."""

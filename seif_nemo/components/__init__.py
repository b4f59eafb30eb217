"""Actor and reward: a role's weights, engine and optimizer behind verbs."""

"""Settings of all tests."""

from hypothesis import settings

# A busy machine takes long over a call now and then; tests that are about time measure CPU time themselves.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

"""Settings of every test."""

from hypothesis import settings

# A deadline measures the machine, not the code.
settings.register_profile("e2eft", deadline=None)
settings.load_profile("e2eft")

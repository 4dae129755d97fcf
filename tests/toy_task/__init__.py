"""A third task, for tests: how bright a surface is."""

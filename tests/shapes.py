"""Shapes and types of arguments, checked wherever they are annotated: see pytest's options."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""A whole number is a float, as Python's own typing has it."""

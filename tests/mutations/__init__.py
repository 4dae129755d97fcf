"""Files damaged at random, judged by what reads them strictly: `python -m tests.mutations`."""

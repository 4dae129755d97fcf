"""Prints the installed packages as a lock: everything but torch's own pin, which is installed
first."""

from importlib.metadata import distributions

SKIPPED = {"pip", "setuptools", "wheel", "e2eft", "torch"}

pins = {
    dist.metadata["Name"].lower().replace("_", "-"): dist.version.split("+")[0]
    for dist in distributions()
}
print("# Made by `make lock`. torch==2.13.0 is installed before these, with pip.")
for name in sorted(pins):
    if name not in SKIPPED and not name.startswith("nvidia-"):
        print(f"{name}=={pins[name]}")

"""Run by `test_registry.py` with `python -I`: serves a model where it can import what it declares.

Arguments: tracking URI, model URI, folder with inputs (N.bin, rgb.npy) and for the answers.
"""

import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: list[str]) -> set[str]:
    """Distributions that installing `names` brings in, without extras."""
    from packaging.requirements import Requirement

    waiting, found = list(names), set[str]()
    while waiting:
        name = normalized(waiting.pop())
        if name in found:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for line in needed:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


class OnlyDeclared:
    """Asks the usual finders, but only for the standard library, what is allowed, and `e2eft` as it
    lies in the model's own folder."""

    def __init__(self, finders: list, allowed: set[str], distributions: set[str]) -> None:
        self.finders = [f for f in finders if "editable" not in f"{f!r} {f.__module__}"]
        self.allowed = allowed | set(sys.stdlib_module_names) | {"e2eft"}
        self.distributions = distributions

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, context):
        for finder in self.finders:
            if hasattr(finder, "find_distributions"):
                for found in finder.find_distributions(context):
                    if normalized(found.name) in self.distributions:
                        yield found


def main() -> None:
    tracking_uri, model_uri, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # What the model declares is read first, by a process that may import anything.
    import mlflow.pyfunc

    local = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(folder / "model")))
    declared = [
        line.split("==")[0]
        for line in (local / "requirements.txt").read_text().splitlines()
        if line.strip()
    ]
    distributions = closure(declared)
    tops = {
        top
        for top, names in importlib.metadata.packages_distributions().items()
        if any(normalized(name) in distributions for name in names)
    }
    sys.meta_path[:] = [OnlyDeclared(list(sys.meta_path), tops, distributions)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "e2eft"]:
        del sys.modules[name]
    try:
        import ray  # noqa: F401
    except ImportError as error:
        refused = str(error)
    else:
        refused = "imported"

    import numpy as np
    import pandas as pd

    model = mlflow.pyfunc.load_model(model_uri)
    images = [(folder / f"{number}.bin").read_bytes() for number in range(4)]
    answers = model.predict(pd.DataFrame({"image": images}))
    for number, row in answers.iterrows():
        (folder / f"{number}.depth").write_bytes(row["depth"])
        (folder / f"{number}.normals").write_bytes(row["normals"])
    texts = answers[["meta", "error_code"]].to_dict("records")
    (folder / "answers.json").write_text(json.dumps(texts))
    rgb = np.load(folder / "rgb.npy")
    np.save(folder / "arrays.npy", model.unwrap_python_model().predict_arrays(rgb))
    import e2eft

    facts = {
        "ray": refused,
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "e2eft": str(e2eft.__file__),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

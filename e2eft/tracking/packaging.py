"""What a registered model takes along to serve itself: source, requirements, signature."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from e2eft.config import TASK_NAMES

PACKAGE = Path(__file__).parent.parent

SERVED_SOURCE = (
    "__init__.py",
    "artifacts",
    "config",
    "corpora",
    "data",
    "errors.py",
    "geometry",
    "images",
    "imports.py",
    "labels",
    "losses.py",
    "metrics",
    "model",
    "secrets.py",
    "storage",
    "targets.py",
    "tasks",
    "views",
    "walk.py",
)
"""What `e2eft/serve.py` imports of this package, shipped with every registered model."""
SERVING_PACKAGES = (
    "accelerate",
    "diffusers",
    "jaxtyping",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "simplejpeg",
    "tenacity",
    "torch",
    "transformers",
    "tyro",
)
"""What that source imports, declared as the registered model's requirements."""
SERVING_PARAMS = ("processing_size", "steps", "seed")
"""Integers a request may set; see `e2eft.serve`."""


def serving_signature() -> Any:
    """Encoded image files in; encoded arrays, JSON and an error code out. See `e2eft.serve`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = dict.fromkeys(TASK_NAMES, "binary") | {"meta": "string", "error_code": "string"}
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema([ColSpec(kind, name) for name, kind in kinds.items()]),
        params=ParamSchema([ParamSpec(name, "long", 0) for name in SERVING_PARAMS]),
    )


def serving_requirements() -> list[str]:
    """What a process needs to serve a model, pinned to the versions installed here."""
    releases = {name: metadata.version(name).split("+")[0] for name in SERVING_PACKAGES}
    return [f"{name}=={release}" for name, release in releases.items()]


def copy_served_source(folder: Path) -> Path:
    """The part of this package that serving imports: source only, no weights."""
    package = PACKAGE
    for room in SERVED_SOURCE:
        files = [package / room] if room.endswith(".py") else (package / room).rglob("*.py")
        for file in files:
            target = folder / package.name / file.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder / package.name

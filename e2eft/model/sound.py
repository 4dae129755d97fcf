"""Whether the weights of a part are those of a model, by their values: damage that leaves a file of
the right form."""

import torch

from e2eft.model.hub import ModelError


def require_sound(name: str, component: str, module: torch.nn.Module) -> None:
    """Raises ModelError if weights are not finite, on which all that a model estimates would be
    NaN, or zero where an interrupted copy into a file of the whole size has left them so.

    A single matrix may well be zero: networks begin with empty branches and empty last layers. No
    whole model has a normalization whose every scale is zero, after which nothing of its input is
    left, nor more empty matrices than others; of the packaged VAE, whose residual branches all
    begin empty, it is a third.
    """
    empty = matrices = 0
    for parameter, weight in module.state_dict().items():
        if not torch.isfinite(weight).all():
            raise ModelError(
                f"model {name!r}: the weights of its {component} are not all finite ({parameter} "
                "is the first of them); a training run that diverged, or a broken copy"
            )
        is_zero = not weight.any()
        if is_zero and weight.ndim == 1 and parameter.endswith(".weight"):
            raise _zeros(name, component, f"all of {parameter}")
        if weight.ndim > 1:
            matrices, empty = matrices + 1, empty + is_zero
    if 2 * empty > matrices:
        raise _zeros(name, component, f"{empty} of its {matrices} matrices")


def _zeros(name: str, component: str, what: str) -> ModelError:
    return ModelError(
        f"model {name!r}: the weights of its {component} are zeros where no model has them "
        f"({what}), as an interrupted download leaves them; copy it again"
    )

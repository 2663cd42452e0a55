"""The result that is to be exported: where a run left its quantized model."""

from pathlib import Path

from amct_tensorflow.errors import ModelNotFoundError
from amct_tensorflow.quantized.model_files import MODEL_ENDING, ModelPaths


def find_result(given: str | Path) -> Path:
    """Returns the quantized model of a run.

    Args:
        given: the folder of its results, their prefix (``results/net``), or the quantized model itself.

    Raises:
        ModelNotFoundError: there is none, or a folder holds several.
    """
    path = Path(given)
    if path.is_dir():
        found = sorted(path.glob(f"*{MODEL_ENDING}"))
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise ModelNotFoundError(f"{path} holds several quantized models: {names}. Give the path of one.")
        if not found:
            raise ModelNotFoundError(f"{path} holds no PREFIX_{MODEL_ENDING}. Give the folder of the results of a run.")
        return found[0]
    if path.is_file():
        return path
    model = ModelPaths.of(path).model
    if not model.is_file():
        raise ModelNotFoundError(
            f"There is neither {path} nor {model}. Give the folder, the prefix, or the PREFIX_{MODEL_ENDING} of a run."
        )
    return model

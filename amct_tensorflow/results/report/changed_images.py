"""Finds the images whose prediction differs between the original and the saved model."""

import base64

import numpy as np

from amct_tensorflow.errors import AmctError, EvaluatorError
from amct_tensorflow.log import log_for
from amct_tensorflow.results.report.document import ChangedImage, ChangedImages
from amct_tensorflow.search.checked_evaluator import CheckedEvaluator
from amct_tensorflow.search.evaluator import Evaluation, Picture
from amct_tensorflow.search.trials import Trial

_MOST = 24
_MOST_BYTES = 32_000
_TYPES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n": "png"}


def find_changed_images(evaluator: CheckedEvaluator, original: Evaluation, saved: Trial) -> ChangedImages:
    """Compares two evaluations image by image, and asks the evaluator for pictures of changed images."""
    before, after = original.image_predictions, saved.evaluation.image_predictions
    if before is None or after is None or before.shape != after.shape:
        return ChangedImages(0, 0, None, None, (), "The evaluator does not tell predictions (image_predictions).")
    changed = np.flatnonzero(before != after)
    gains = _gains(original, saved)
    lost, won = (changed[sign * gains[changed] > 0] if gains is not None else changed[:0] for sign in (-1, 1))
    order = list(dict.fromkeys([*lost.tolist(), *won.tolist(), *changed.tolist()]))
    numbers = sorted(order[:_MOST])
    shown, note = _show(evaluator, numbers, before, after)
    by_number = {each.number: each for each in shown}
    return ChangedImages(
        images=len(before),
        changed=len(changed),
        lost=None if gains is None else len(lost),
        won=None if gains is None else len(won),
        shown=tuple(by_number[number] for number in order[:_MOST] if number in by_number),
        note=note,
    )


def _gains(original: Evaluation, saved: Trial) -> np.ndarray | None:
    """Returns the gain in each image's result, in its own unit, float64 [images]."""
    before, after = original.image_results, saved.evaluation.image_results
    predictions = original.image_predictions
    if before is None or after is None or predictions is None or not before.shape == after.shape == predictions.shape:
        return None
    gains = after - before
    # The sign of the loss tells whether large results are good.
    return np.asarray(-gains if gains.mean() * saved.judged.loss > 0 else gains)


def _show(
    evaluator: CheckedEvaluator, numbers: list[int], before: np.ndarray, after: np.ndarray
) -> tuple[list[ChangedImage], str | None]:
    """Returns the pictures of some images, or why there are none."""
    if not numbers:
        return [], "No image changed its prediction."
    try:
        pictures = evaluator.pictures(numbers)
        if pictures is None:
            return [], "The evaluator shows no pictures (pictures)."
        shown = [
            ChangedImage(number, picture.label, str(before[number]), str(after[number]), _data_uri(picture))
            for number, picture in zip(numbers, pictures, strict=True)
        ]
    except AmctError as error:
        log_for("report").warning("The report has no pictures. %s", error)
        return [], f"No pictures: {error}"
    return shown, None


def _data_uri(picture: Picture) -> str:
    """Returns a picture as a data URI.

    Raises:
        EvaluatorError: it is too large, or neither JPEG nor PNG.
    """
    kind = next((name for start, name in _TYPES.items() if picture.data.startswith(start)), None)
    if kind is None or len(picture.data) > _MOST_BYTES:
        raise EvaluatorError(
            f"A picture for the report has {len(picture.data)} bytes, or is neither JPEG nor PNG. Return one of these, "
            f"of at most {_MOST_BYTES} bytes."
        )
    return f"data:image/{kind};base64,{base64.b64encode(picture.data).decode()}"

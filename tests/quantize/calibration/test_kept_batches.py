"""Which tensors of the caller's runs make up the calibration batches."""

import gc
import weakref

import numpy as np
import pytest

from amct_tensorflow.errors import CalibrationError
from amct_tensorflow.quantize.calibration.feed import KeptBatches


def value(number, images=2):
    return np.full((images, 3), number, np.float32)


def numbers(batches):
    """What is in the batches, by the number that fills each tensor."""
    return [{tensor: int(array[0, 0]) for tensor, array in batch.items()} for batch in batches]


def test_tensors_arrive_in_any_order():
    kept = KeptBatches(2, ["a", "b"])
    for tensor, number in [("b", 1), ("b", 2), ("a", 1)]:
        kept.keep(tensor, value(number))
    assert kept.complete == 1 and numbers([kept.batch(0)]) == [{"a": 1, "b": 1}]
    kept.keep("a", value(2))
    assert kept.complete == 2 and numbers(kept.batches()) == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    kept.check_complete()


def test_a_copy_is_kept():
    """What a tap is shown is TensorFlow's own buffer."""
    kept = KeptBatches(1, ["a"])
    array = value(1)
    kept.keep("a", array)
    array[:] = 9
    assert numbers(kept.batches()) == [{"a": 1}]


def test_runs_beyond_the_last_batch_do_not_count():
    kept = KeptBatches(1, ["a"], ["late"])
    for number in (1, 2, 3):
        kept.keep("a", value(number))
        kept.keep("late", value(number))
    assert numbers(kept.batches()) == [{"a": 1, "late": 1}]


@pytest.mark.parametrize("order", [("a", "b", "late"), ("late", "b", "a"), ("b", "late", "a")])
@pytest.mark.parametrize("empty", ["a", "b"])
def test_runs_without_images_do_not_count_and_shift_nothing(order, empty):
    kept = KeptBatches(2, ["a", "b"], ["late"])
    for run in range(5):
        for tensor in order:
            kept.keep(tensor, value(run, 0 if tensor == empty and run in (0, 2) else 2))
    expected = [{"a": run, "b": run, "late": run} for run in (1, 3)]
    assert numbers(kept.batches()) == expected


def test_late_tensors_that_did_not_arrive_in_every_batch_are_left_out():
    kept = KeptBatches(2, ["a"], ["late", "never"])
    kept.keep("a", value(1))
    kept.keep("late", value(1))
    kept.keep("a", value(2))
    assert numbers(kept.batches()) == [{"a": 1}, {"a": 2}]
    kept.keep("late", value(2))
    assert numbers(kept.batches()) == [{"a": 1, "late": 1}, {"a": 2, "late": 2}]


def test_tensors_without_axes():
    kept = KeptBatches(1, ["flag"])
    kept.keep("flag", np.array(False))
    assert kept.batches() == ({"flag": np.array(False)},)


def test_a_tensor_alone_is_not_kept_for_ever():
    kept = KeptBatches(2, ["a", "b"])
    arrays = []
    for number in range(10):
        kept.keep("a", value(number))
        arrays.append(number)
    assert sum(len(values) for values in kept._values.values()) == 2
    with pytest.raises(CalibrationError, match="Tensor 'b' was not computed in every calibration batch"):
        kept.check_complete()


def test_too_few_batches_and_such_without_images():
    kept = KeptBatches(3, ["a"])
    kept.keep("a", value(1))
    with pytest.raises(CalibrationError, match=r"needs 3 batches, but saw 1\. "):
        kept.check_complete()
    kept.keep("a", value(1, 0))
    with pytest.raises(CalibrationError, match=r"needs 3 batches, but saw 1, and 1 without images"):
        kept.check_complete()


def test_what_is_forgotten_is_freed_and_nothing_more_is_kept():
    kept = KeptBatches(2, ["a"], ["late"])
    kept.keep("a", value(1))
    reference = weakref.ref(kept.batch(0)["a"])
    kept.forget()
    gc.collect()
    assert reference() is None
    kept.keep("a", value(2))
    kept.keep("late", value(2))
    assert kept.batches() == ()

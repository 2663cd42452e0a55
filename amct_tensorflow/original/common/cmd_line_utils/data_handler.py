"""What clients read raw data with."""

from amct_tensorflow.data.raw_batches import load_data

__all__ = ["load_data"]

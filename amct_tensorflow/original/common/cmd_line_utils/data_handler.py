"""The reader of raw data for clients."""

from amct_tensorflow.data.raw_batches import load_data

__all__ = ["load_data"]

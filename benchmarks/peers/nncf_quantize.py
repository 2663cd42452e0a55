"""NNCF on OpenVINO: quantizes a model with its defaults. Arguments: the model, images (.npy), the file to write."""

import sys

import nncf
import numpy as np
import openvino as ov


def main() -> None:
    """Quantizes and writes."""
    model, images, path = sys.argv[1:]
    samples = [image[None] for image in np.load(images)]
    quantized = nncf.quantize(ov.convert_model(model), nncf.Dataset(samples), subset_size=len(samples))
    ov.save_model(quantized, path, compress_to_fp16=False)


main()

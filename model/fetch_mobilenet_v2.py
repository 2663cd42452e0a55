"""Fetches TF-slim's MobileNet V2 1.0 224, trained on ImageNet, and puts its frozen graph into model/.

    python model/fetch_mobilenet_v2.py [--archive ADDRESS_OR_FILE]

The archive also holds checkpoints and other forms of the model. Only the frozen graph is taken out of it, under a name
of our own, after it was checked; nothing else of the archive reaches the disk. If the file is there, nothing is done.

Exit codes: 0 the model is there; 1 it could not be fetched, or is another model; 2 wrong arguments; 130 interrupted.
"""

import argparse
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from amct_tensorflow.console import ProgressBar, quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()  # before it is imported

import tensorflow as tf
from google.protobuf.message import DecodeError
from tqdm.utils import CallbackIOWrapper

from amct_tensorflow.io.files import write_atomically
from amct_tensorflow.log import printable

ARCHIVE = "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.0_224.tgz"
MODEL = Path(__file__).resolve().parent / "mobilenet_v2_1.0_224_frozen.pb"
TIMEOUT_SECONDS = 60
# What is read at most of an archive that is none, or is made to fill memory: it holds some 80 MB, the graph 14 MB.
MOST_UNPACKED_BYTES = 2**30
MOST_GRAPH_BYTES = 2**26

# Shapes that tell this model from its siblings of other widths, input sizes and classes.
SHAPES = {
    "input": [224, 224, 3],  # behind the number of images
    "MobilenetV2/Conv/weights": [3, 3, 3, 32],
    "MobilenetV2/Conv_1/weights": [1, 1, 320, 1280],
    "MobilenetV2/Logits/Conv2d_1c_1x1/weights": [1, 1, 1280, 1001],
}
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
BLOCKS = 17


class FetchError(ValueError):
    """The model cannot be fetched; the message says what to do."""


@contextmanager
def open_archive(source: str) -> Iterator[IO[bytes]]:
    """Opens an address or a file for reading, with a progress bar.

    Raises:
        FetchError: the address is none.
        OSError, HTTPException: it cannot be read.
    """
    if not source.startswith(("https://", "http://")):
        with Path(source).open("rb") as file:
            yield file
        return
    try:
        response = urlopen(source, timeout=TIMEOUT_SECONDS)
    except ValueError as error:
        raise FetchError(f"{source} is no address ({error}). Give one with --archive, or a file.") from error
    with response, ProgressBar(f"fetching {source}", response.length, "B") as progress:
        yield CallbackIOWrapper(progress.update, response, "read")


def extract_graph(stream: IO[bytes]) -> bytes:
    """Returns the frozen graph out of a tar archive, which is read once, from the front.

    Raises:
        FetchError: the archive is damaged, too large, or does not hold it.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                if member.offset_data + member.size > MOST_UNPACKED_BYTES:
                    raise FetchError("The archive is far larger than that of MobileNet V2. Use another one.")
                if PurePosixPath(member.name).name == MODEL.name and member.isreg():
                    return _read_member(archive, member)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FetchError(f"The archive is damaged or none ({error}). Fetch it again.") from error
    raise FetchError(f"The archive does not hold {MODEL.name}. Use the one of MobileNet V2 1.0 224.")


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MOST_GRAPH_BYTES:
        raise FetchError(f"{member.name!r} in the archive is too large to be MobileNet V2. Use another archive.")
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def check_graph(data: bytes) -> None:
    """Checks that a graph is MobileNet V2 1.0 224 as TF-slim freezes it.

    Raises:
        FetchError: it is not; the message names a node that differs.
    """
    try:
        nodes = {node.name: node for node in tf.compat.v1.GraphDef.FromString(data).node}
    except DecodeError as error:
        raise FetchError("The file is no frozen TensorFlow model, or a damaged one. Fetch it again.") from error
    for name, op in expected_ops().items():
        if name not in nodes or nodes[name].op != op:
            raise FetchError(f"This is not MobileNet V2 1.0 224: it has no {op} {name!r}. Use another model.")
    for name, expected in SHAPES.items():
        value = nodes[name].attr
        shape = value["shape"].shape if name == "input" else value["value"].tensor.tensor_shape
        found = [dimension.size for dimension in shape.dim][-len(expected) :]
        if found != expected:
            raise FetchError(f"This is not MobileNet V2 1.0 224: {name!r} has the shape {found}, not {expected}.")


def expected_ops() -> dict[str, str]:
    """Returns the op of the input, the output, the weights and the 54 layers, by name."""
    scopes = ["expanded_conv", *(f"expanded_conv_{index}" for index in range(1, BLOCKS))]
    layers = {f"{scope}/depthwise/depthwise": "DepthwiseConv2dNative" for scope in scopes}
    layers |= {f"{scope}/project/Conv2D": "Conv2D" for scope in scopes}
    layers |= {f"{scope}/expand/Conv2D": "Conv2D" for scope in scopes[1:]}
    layers |= dict.fromkeys(["Conv/Conv2D", "Conv_1/Conv2D", "Logits/Conv2d_1c_1x1/Conv2D"], "Conv2D")
    layers["Logits/AvgPool"] = "AvgPool"
    ops = {f"MobilenetV2/{name}": op for name, op in layers.items()}
    return ops | dict.fromkeys(SHAPES, "Const") | {"input": "Placeholder", OUTPUT: "Reshape"}


def fetch(source: str, model: Path) -> None:
    """Fetches the model unless it is there; never replaces a file.

    Raises:
        FetchError: it cannot be fetched, or the file that is there is another model.
    """
    if model.exists():
        try:
            check_graph(model.read_bytes())
        except FetchError as error:
            raise FetchError(f"{model}: {error} Move the file out of the way to fetch the model.") from error
        print(f"{model} is there already.")
        return
    try:
        with open_archive(source) as stream:
            data = extract_graph(stream)
    except (OSError, HTTPException) as error:
        raise FetchError(
            f"{source} cannot be read: {error}. If this machine has no internet, fetch the archive elsewhere and give "
            "the file with --archive (make model ARCHIVE=FILE)."
        ) from error
    check_graph(data)
    write_atomically(model, data)
    print(f"{model}: {len(data) / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches the model; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch MobileNet V2 1.0 224 into model/.")
    parser.add_argument("--archive", metavar="ADDRESS_OR_FILE", default=ARCHIVE, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        fetch(arguments.archive, MODEL)
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130
    except (FetchError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

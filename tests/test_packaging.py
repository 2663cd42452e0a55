"""What `pip install .` gives: the package, its type marker and its licence, and nothing else."""

import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import ROOT

pytest.importorskip("build", reason="the package that builds packages is not installed")


def run(*arguments, cwd):
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds both from a copy, since building leaves files beside the source."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "amct_tensorflow", source / "amct_tensorflow", ignore=shutil.ignore_patterns("__pycache__"))
    for other in ("src", "tests", "benchmarks", "data", "model"):
        (source / other).mkdir()
        (source / other / "module.py").touch()
    run("-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), cwd=source)
    return folder / "dist"


def test_wheel(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "amct_tensorflow").rglob("*.py")}
    packaged = {name for name in names if ".dist-info/" not in name}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "amct_tensorflow/results/report/templates").iterdir()}
    others = {"amct_tensorflow/py.typed", "amct_tensorflow/devices/atc_op_types.txt"}
    assert packaged == modules | templates | others and templates
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.campaign
def test_source_distribution(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[-1] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "amct_tensorflow/py.typed", "amct_tensorflow/log.py"} <= names
    assert "amct_tensorflow/results/report/templates/report.html" in names


@pytest.mark.campaign
def test_installed_package_works_outside_of_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target), str(wheel), cwd=tmp_path)
    code = "import amct_tensorflow, sys; print(amct_tensorflow.__file__)"
    found = run("-c", f"import sys; sys.path.insert(0, {str(target)!r}); {code}", cwd=tmp_path)
    assert str(target) in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]  # importing writes nothing


@pytest.mark.campaign
def test_requirements_are_those_of_the_package():
    """requirements.txt is enough for the sample: it lists what the package depends on."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = {line for line in lines if line and not line.startswith("#")}
    section = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    assert requirements == {line.split('"')[1] for line in section.splitlines() if '"' in line}

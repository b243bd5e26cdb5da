"""The image of this tree: what its tag depends on, and what is said when it is not there."""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from pathlib import Path

import pytest

from emlab import images, parts
from emlab.errors import EngineError, ImageMissing
from tests.programs import docker_client

pytestmark = pytest.mark.needs("mongod")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this checkout that a test may edit; the tag is the copy's. The package in it is returned."""
    shutil.copytree(images.PACKAGE, tmp_path / "emlab", ignore=shutil.ignore_patterns("__pycache__"))
    for image in ("runtime", "cloud"):
        (tmp_path / "images" / image).mkdir(parents=True)
        shutil.copy(images.dockerfile(image), tmp_path / "images" / image)
    monkeypatch.setattr(images, "PACKAGE", tmp_path / "emlab")
    return tmp_path / "emlab"


def test_the_tag_changes_with_the_code_and_comes_back_with_it(tree: Path) -> None:
    before = images.current_tag()
    edited = tree / "custodian.py"
    text = edited.read_text()
    edited.write_text(text + "\n# an edit\n")
    assert images.current_tag() != before
    edited.write_text(text)
    assert images.current_tag() == before


def test_what_only_the_host_runs_does_not_change_the_tag(tree: Path) -> None:
    before = images.current_tag()
    (tree / "plots.py").write_text("# an edit\n")
    assert images.current_tag() == before


def test_a_file_that_moves_changes_the_tag(tree: Path) -> None:
    before = images.current_tag()
    (tree / "geo.py").rename(tree / "wire" / "geo.py")
    assert images.current_tag() != before


def test_another_library_or_dockerfile_changes_both_images(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {(images.runtime_tag(), images.current_tag())}
    with (tree.parent / "images" / "runtime" / "Dockerfile").open("a") as file:
        file.write("# an edit\n")
    tags.add((images.runtime_tag(), images.current_tag()))
    monkeypatch.setattr(images, "LIBRARIES", images.LIBRARIES[1:])
    tags.add((images.runtime_tag(), images.current_tag()))
    assert [len(set(column)) for column in zip(*tags, strict=True)] == [3, 3]


def test_the_tag_is_known_before_anybody_waits_for_it() -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        images.current_tag()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


def test_an_installed_wheel_brings_its_dockerfiles(tree: Path) -> None:
    (tree / "_data").mkdir()
    (tree.parent / "images").rename(tree / "_data" / "images")
    assert images.dockerfile("cloud").read_text().startswith("# One user cloud")
    shutil.rmtree(tree / "_data")
    with pytest.raises(EngineError, match="install it again"):
        images.dockerfile("cloud")


def test_the_libraries_are_the_hosts_with_all_that_they_need() -> None:
    versions = images.library_versions()
    assert {"anyio", "dnspython", "h11", *(name.replace("_", "-") for name in images.LIBRARIES)} <= {
        name.replace("_", "-") for name in versions
    }
    assert {"matplotlib", "shapely", "docker"}.isdisjoint(versions)
    assert all(importlib.metadata.version(name) == version for name, version in versions.items())


@pytest.mark.needs("docker")
def test_an_edited_tree_is_told_to_build(cloud_image: str, tree: Path) -> None:
    with docker_client() as client:
        assert images.require(client) == cloud_image
        assert parts.unready("docker") is None
        (tree / "custodian.py").write_text("# an edit\n")
        with pytest.raises(ImageMissing, match="run: emlab images build"):
            images.require(client)
        assert "run: emlab images build" in str(parts.unready("docker"))
        assert parts.choose_engine() == ("process", parts.unready("docker"))
        assert parts.unready("process") is None


@pytest.mark.needs("docker")
def test_a_tree_whose_custodian_cannot_start_is_not_built(cloud_image: str, tree: Path) -> None:
    (tree / "apps" / "custodian.py").write_text("import a_library_that_nobody_has\n")
    with docker_client() as client:
        with pytest.raises(EngineError, match="a_library_that_nobody_has"):
            images.build(client)
        with pytest.raises(ImageMissing):
            images.require(client)

"""Whole builds with the real resolver, of tiny wheels."""

import gzip
import io
import json
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from packaging_lab import SCRIPT, Workshop, make_tar

from hub.adapters.packaging.dependencies import with_server
from hub.core.packaging import Architecture, Base, BuiltImage, ModelFile
from protocol.errors import Code, FleetError
from protocol.ids import Digest, digest_of


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(FleetError) as caught:
        call()
    return caught.value.code


def manifest_of(workshop: Workshop, image: BuiltImage) -> dict[str, Any]:
    content, _ = workshop.registry.get_manifest(image.name, image.tag)
    assert digest_of(content) == image.digest
    return dict(json.loads(content))


def files_of(workshop: Workshop, image: BuiltImage, kind: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for layer in manifest_of(workshop, image)["layers"]:
        if layer["annotations"]["io.rimward.layer"] == kind:
            raw = workshop.registry.get_blob(image.name, Digest(layer["digest"]))
            with raw, tarfile.open(fileobj=raw) as archive:
                for member in archive.getmembers():
                    if file := archive.extractfile(member):
                        found[member.name] = file.read()
    return found


def test_an_image_has_its_layers_in_order(workshop: Workshop) -> None:
    image = workshop.build(workshop.with_code({"score.py": SCRIPT}))

    assert [layer.kind for layer in image.layers] == ["deps", "server", "code", "model"]
    site = files_of(workshop, image, "deps")
    assert site["opt/rimward/site/tinyserver/__init__.py"] == b"VERSION = '1.0'\n"
    assert "opt/rimward/site/tinydep/__init__.py" in site
    server = files_of(workshop, image, "server")
    assert sorted(server) == [
        "opt/rimward/server/azureml_shim/azureml/__init__.py",
        "opt/rimward/server/inference/__main__.py",
        "opt/rimward/server/inference/requirements.txt",
        "opt/rimward/server/protocol/__init__.py",
        "opt/rimward/server/protocol/golden.py",
    ]
    assert files_of(workshop, image, "code") == {"var/azureml-app/score.py": SCRIPT}
    model = "var/azureml-app/azureml-models/digits/1/model.onnx"
    assert files_of(workshop, image, "model") == {model: b"weights"}


def test_diff_ids_are_the_digests_of_the_tars(workshop: Workshop) -> None:
    image = workshop.build(workshop.with_code({"score.py": SCRIPT}))
    with workshop.registry.get_blob(image.name, image.config_digest) as file:
        config = json.load(file)

    tars = []
    for layer in manifest_of(workshop, image)["layers"]:
        with workshop.registry.get_blob(image.name, Digest(layer["digest"])) as file:
            raw = file.read()
        packed = layer["mediaType"].endswith("gzip")
        tars.append(digest_of(gzip.decompress(raw) if packed else raw))
    assert config["rootfs"]["diff_ids"] == tars


def test_nothing_of_this_machine_is_in_the_dependencies(workshop: Workshop) -> None:
    image = workshop.build(workshop.recipe())

    site = files_of(workshop, image, "deps")
    assert not [name for name in site if "/bin/" in name or name.endswith((".lock", ".pyc"))]
    assert not [name for name in site if name.endswith(("REQUESTED", "direct_url.json"))]
    assert not [name for name, data in site.items() if str(workshop.root).encode() in data]
    record = site["opt/rimward/site/tinyserver-1.0.dist-info/RECORD"].decode()
    assert "bin/" not in record
    assert "tinyserver/__init__.py,sha256=" in record


def test_two_builds_in_different_folders_are_the_same(wheels: Path, tmp_path: Path) -> None:
    images = []
    for name in ("first", "second"):
        workshop = Workshop(tmp_path / name, wheels)
        files = {"score.py": SCRIPT, "pkg/a.py": b"x"}
        if name == "second":
            files = dict(reversed(files.items()))
        images.append(workshop.build(workshop.with_code(files)))

    assert images[0].layers == images[1].layers
    assert images[0].digest == images[1].digest


def test_building_again_sends_nothing(workshop: Workshop) -> None:
    first = workshop.build(workshop.recipe())
    workshop.steps.clear()
    second = workshop.build(workshop.recipe())

    assert first.sent_bytes > 0
    assert (second.sent_bytes, second.digest) == (0, first.digest)
    assert "dependencies: installing" not in workshop.steps


def test_a_new_model_sends_only_its_layer(workshop: Workshop) -> None:
    workshop.build(workshop.recipe(b"old"))
    image = workshop.build(workshop.recipe(b"new"))

    assert image.sent_bytes == image.layers[-1].size


def test_another_repository_gets_its_layers_without_sending(workshop: Workshop) -> None:
    workshop.build(workshop.recipe())
    image = workshop.build(workshop.recipe(name="team/else"))

    assert image.sent_bytes == 0
    assert workshop.registry.has_blob("team/else", image.layers[0].digest)


def test_an_image_for_another_processor_has_other_dependencies(workshop: Workshop) -> None:
    amd = workshop.build(workshop.recipe())
    arm = workshop.build(workshop.recipe(architecture=Architecture.ARM64))

    assert arm.digest != amd.digest
    assert arm.layers[1:] == amd.layers[1:]


def test_several_models_are_several_layers(workshop: Workshop) -> None:
    second = ModelFile("faces", 3, "net.onnx", workshop.put(b"faces"))
    recipe = workshop.with_code({"score.py": SCRIPT})
    image = workshop.build(replace(recipe, models=(*recipe.models, second)))

    kinds = ["deps", "server", "code", "model", "model"]
    assert [layer.kind for layer in image.layers] == kinds
    models = files_of(workshop, image, "model")
    assert models["var/azureml-app/azureml-models/faces/3/net.onnx"] == b"faces"


def test_own_requirements_are_completed_by_the_servers(workshop: Workshop) -> None:
    image = workshop.build(workshop.recipe(requirements=("other==2.0",)))

    site = files_of(workshop, image, "deps")
    assert "opt/rimward/site/other/__init__.py" in site
    assert "opt/rimward/site/tinyserver/__init__.py" in site


def test_the_owner_chooses_the_versions_of_what_he_names() -> None:
    server = ["granian>=2.5,<3", "numpy>=2,<3", "onnxruntime>=1.22,<2"]

    assert with_server(None, server, has_code=True) == tuple(server)
    assert with_server(["NumPy==1.26"], server, has_code=True) == ("NumPy==1.26", server[0])
    assert with_server([], server, has_code=False) == tuple(server)


def test_what_cannot_be_satisfied_is_said_in_the_resolvers_words(workshop: Workshop) -> None:
    recipe = workshop.recipe(requirements=("tinydep==99",))

    with pytest.raises(FleetError, match=r"tinydep==99") as caught:
        workshop.build(recipe)

    assert caught.value.code == Code.DEPENDENCY_UNSATISFIABLE


@pytest.mark.parametrize(
    ("files", "script", "wanted"),
    [
        ({"score.py": b"def init(): pass"}, "score.py", Code.SCRIPT_INVALID),
        ({"score.py": b"def ("}, "score.py", Code.SCRIPT_INVALID),
        ({"other.py": SCRIPT}, "score.py", Code.FILE_MISSING),
        ({"../score.py": SCRIPT}, "score.py", Code.REQUEST_INVALID),
        ({"score.py": SCRIPT, "azureml-models/x": b""}, "score.py", Code.REQUEST_INVALID),
    ],
)
def test_bad_sources_are_refused_before_anything_is_installed(
    workshop: Workshop, files: dict[str, bytes], script: str, wanted: Code
) -> None:
    assert code_of(lambda: workshop.build(workshop.with_code(files, script))) == wanted
    assert "dependencies: resolving" not in workshop.steps


@pytest.mark.parametrize(
    ("files", "wanted"),
    [({"score.py": b"x = 1"}, Code.SCRIPT_INVALID), ({"a.py": SCRIPT}, Code.FILE_MISSING)],
)
def test_a_bad_source_is_refused_without_building(
    workshop: Workshop, files: dict[str, bytes], wanted: Code
) -> None:
    assert code_of(lambda: workshop.builder.check(workshop.with_code(files))) == wanted


def test_a_good_recipe_passes_the_check(workshop: Workshop) -> None:
    workshop.builder.check(workshop.with_code({"score.py": SCRIPT}))

    assert not (workshop.root / "cache").exists()


def test_missing_bytes_are_refused(workshop: Workshop) -> None:
    lost = ModelFile("digits", 1, "model.onnx", digest_of(b"never stored"))
    recipe = replace(workshop.recipe(), models=(lost,))

    assert code_of(lambda: workshop.build(recipe)) == Code.BLOB_UNKNOWN


def test_a_machine_without_debian_has_no_debian_base(workshop: Workshop) -> None:
    (workshop.root / "etc").mkdir()
    (workshop.root / "etc" / "os-release").write_text('ID=other\nPRETTY_NAME="Other 1"\n')

    assert code_of(lambda: workshop.build(workshop.recipe(base=Base.DEBIAN))) == (
        Code.BASE_UNAVAILABLE
    )


def test_a_cancelled_build_ends_and_leaves_no_work(workshop: Workshop) -> None:
    stop = threading.Event()
    stop.set()

    assert code_of(lambda: workshop.build(workshop.recipe(), stop)) == Code.BUILD_FAILED
    assert list((workshop.root / "cache" / "work").iterdir()) == []


def test_a_build_without_time_ends(workshop: Workshop) -> None:
    late = replace(workshop.builder, time_limit_seconds=-1.0)

    assert code_of(
        lambda: late.build(workshop.recipe(), workshop.registry, workshop.steps.append)
    ) == (Code.BUILD_FAILED)


def test_an_earlier_resolution_serves_when_no_index_answers(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    first = workshop.build(workshop.recipe())
    nobody = ("--no-config", "--index-url", "http://127.0.0.1:9/simple")
    offline = replace(workshop.builder, uv=replace(workshop.uv, options=nobody))

    image = offline.build(workshop.recipe(), workshop.registry, workshop.steps.append)

    assert image.digest == first.digest


def test_a_large_model_does_not_pass_through_memory(workshop: Workshop) -> None:
    size = 64 * 1024 * 1024

    class Zeros(io.RawIOBase):
        left = size

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            count = min(len(buffer), self.left)
            buffer[:count] = bytes(count)
            self.left -= count
            return count

    source: BinaryIO = io.BufferedReader(Zeros())
    model = ModelFile("digits", 1, "model.onnx", workshop.blobs.put(source))
    recipe = replace(workshop.recipe(), models=(model,))
    tracemalloc.start()
    try:
        image = workshop.build(recipe)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert image.layers[-1].size > size
    assert peak < size // 4


def test_a_source_packed_with_gzip_gives_the_same_image(workshop: Workshop) -> None:
    plain = make_tar({"score.py": SCRIPT})
    images = {
        workshop.build(workshop.recipe(code=workshop.put(data), entry_script="score.py")).digest
        for data in (plain, gzip.compress(plain))
    }

    assert len(images) == 1

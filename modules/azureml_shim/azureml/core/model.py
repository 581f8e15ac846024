"""Where a registered model lies inside a service."""

import os
from pathlib import Path

ROOT_NAME = "azureml-models"


class ModelNotFoundException(Exception):  # noqa: N818 - the name that scripts catch
    """No model of this name and version lies in the image."""


class Model:
    """What a service needs of `azureml.core.model.Model`: the way to the model's files."""

    @staticmethod
    def get_model_path(model_name: str, version: int | str | None = None) -> str:
        """Return the path of the file or folder that was registered as `model_name`.

        Looks for `<root>/<model_name>/<version>/<the one entry>`, newest version when none is
        given, where the root is `azureml-models` of the working directory or what
        AZUREML_MODEL_DIR points at: such a root, or one model's `<root>/<name>/<version>`. Then
        for `./<model_name>`. Raises ModelNotFoundException.
        """
        for root in _roots():
            folder = root / model_name
            found = _version_folder(folder, version) if folder.is_dir() else None
            if found is not None:
                return str(_only_entry(found))
        for local in (Path(model_name), *(root / model_name for root in _roots())):
            if version is None and local.exists():
                return str(local)
        wanted = model_name if version is None else f"{model_name}:{version}"
        raise ModelNotFoundException(
            f"model '{wanted}' is not in this image; looked below"
            f" {', '.join(repr(str(root)) for root in _roots())}"
        )


def _roots() -> list[Path]:
    roots = []
    given = os.environ.get("AZUREML_MODEL_DIR")
    if given:
        folder = Path(given)
        # Joined, not resolved: scripts get the path in the form that the variable has.
        roots += [folder, folder.parent.parent] if folder.name.isdigit() else [folder]
    return [*roots, Path(ROOT_NAME)]


def _version_folder(folder: Path, version: int | str | None) -> Path | None:
    if version is not None:
        chosen = folder / str(version)
        return chosen if chosen.is_dir() else None
    versions = [entry for entry in folder.iterdir() if entry.name.isdigit() and entry.is_dir()]
    return max(versions, key=lambda entry: int(entry.name), default=None)


def _only_entry(folder: Path) -> Path:
    entries = sorted(folder.iterdir())
    if len(entries) != 1:
        raise ModelNotFoundException(
            f"'{folder}' must hold exactly one file or folder, it holds {len(entries)}"
        )
    return entries[0]

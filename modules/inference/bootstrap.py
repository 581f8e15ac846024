"""Decides what this image serves, from its settings and what lies on its disk."""

import sys
from pathlib import Path

from .errors import StartupCode, StartupError
from .golden import MAX_BYTES, GoldenFileError, GoldenSamples, parse_golden
from .scorers.entry_script import EntryScript
from .scorers.scorer import Scorer
from .settings import Settings

SHIM = Path(__file__).resolve().parent.parent / "azureml_shim"


def choose_scorer(settings: Settings) -> Scorer:
    """Return the entry script's scorer, or one for the only ONNX model; StartupError if neither.

    Nothing is imported or loaded yet: that is init()'s part.
    """
    if settings.model_dir is not None and not settings.model_dir.is_dir():
        raise StartupError(
            StartupCode.MODEL_DIR_MISSING,
            f"model folder '{settings.model_dir}' does not exist",
            hint="set `AZUREML_MODEL_DIR` to the folder that holds the model",
        )
    script = find_entry_script(settings)
    if script is not None:
        return EntryScript(script)
    return _no_code(settings)


def _no_code(settings: Settings) -> Scorer:
    model = _only_model(settings)
    # numpy and onnxruntime are half of the memory: a script without them must not pay for them.
    from .engines.onnx_engine import OnnxEngine  # noqa: PLC0415
    from .scorers.no_code import NoCodeScorer  # noqa: PLC0415

    return NoCodeScorer(model, OnnxEngine(threads=settings.threads))


def find_entry_script(settings: Settings) -> Path | None:
    """Return the script to host: the named one, else `main.py` of the app root, else None.

    Raises StartupError when a script is named and not there.
    """
    root = settings.app_root
    if settings.entry_script is None:
        usual = root / "main.py"
        return usual if usual.is_file() else None
    places = [root / settings.entry_script]
    if settings.source_directory is not None:
        places.append(root / settings.source_directory / settings.entry_script)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise StartupError(
            StartupCode.ENTRY_SCRIPT_MISSING,
            f"entry script '{places[0]}' does not exist",
            hint="set `AZUREML_ENTRY_SCRIPT` to a file below `AML_APP_ROOT`",
        )
    return found


def _only_model(settings: Settings) -> Path:
    if settings.model_dir is None:
        raise StartupError(
            StartupCode.MODEL_UNCLEAR,
            "neither an entry script nor a model folder is named",
            hint="set `AZUREML_ENTRY_SCRIPT`, or `AZUREML_MODEL_DIR` to a folder with one .onnx",
        )
    models = sorted(settings.model_dir.rglob("*.onnx"))
    if len(models) != 1:
        names = ", ".join(f"'{model.name}'" for model in models[:5]) or "none"
        raise StartupError(
            StartupCode.MODEL_UNCLEAR,
            f"model folder '{settings.model_dir}' holds {len(models)} .onnx files: {names}",
            hint="without an entry script there must be exactly one; or write an entry script",
        )
    return models[0]


def extend_path(settings: Settings, path: list[str] | None = None) -> None:
    """Let scripts import what Azure ML lets them: app root, source folder, azureml names.

    Everything goes to the end, so installed packages win, a real azureml-core among them.
    """
    target = sys.path if path is None else path
    wanted = [settings.app_root]
    if settings.source_directory is not None:
        wanted.append(settings.app_root / settings.source_directory)
    script = find_entry_script(settings)
    if script is not None:
        wanted.append(script.parent)
    target.extend(str(place) for place in (*wanted, SHIM) if str(place) not in target)


def read_golden(settings: Settings) -> GoldenSamples | None:
    """Return the golden samples, if there is to be such a check; StartupError if unreadable."""
    if settings.golden_file is None:
        return None
    try:
        with settings.golden_file.open("rb") as file:
            return parse_golden(file.read(MAX_BYTES + 1))
    except (OSError, GoldenFileError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartupError(
            StartupCode.GOLDEN_FILE_INVALID,
            f"golden samples '{settings.golden_file}' cannot be used: {reason}",
            hint="set `RIMWARD_GOLDEN_FILE` to a readable file, or leave it unset",
        ) from error

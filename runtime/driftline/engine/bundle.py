"""A version's files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftline.config import ModelSettings, bundle_settings
from driftline.errors import ModelError

MODEL = "model.onnx"
SETTINGS = "driftline.toml"
PROFILE = "profile.arrow"
TRANSFORM = "transform.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a version consists of.

    model      its file
    settings   of it
    profile    that it is watched by, if any
    transform  of raw columns to what the model takes, if any
    """

    model: Path
    settings: ModelSettings
    profile: Path | None = None
    transform: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a version's folder, or a lone .onnx file.

        Raises ModelError if there is no model in it, ConfigError if its driftline.toml is wrong.
        """
        if path.is_file():
            return cls(path, ModelSettings())
        if not path.is_dir():
            raise ModelError(f"{path}: expected a version's folder or an .onnx file, there is nothing")
        model = path / MODEL
        if model.is_dir():  # Triton's form of a model with external data
            model = model / MODEL
        if not model.is_file():
            raise ModelError(f"{path}: expected a file {MODEL}, there is none")
        profile, transform = (
            file if (file := path / name).is_file() else None for name in (PROFILE, TRANSFORM)
        )
        return cls(model, bundle_settings(path / SETTINGS), profile, transform)

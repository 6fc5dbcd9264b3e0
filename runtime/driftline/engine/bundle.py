"""A version's files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftline.config import ModelSettings, bundle_settings
from driftline.errors import ModelError

MODEL = "model.onnx"
SETTINGS = "driftline.toml"
PROFILE = "profile.arrow"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a version consists of: its model file, its settings, and the profile it is watched by, if any."""

    model: Path
    settings: ModelSettings
    profile: Path | None = None

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
        profile = path / PROFILE
        return cls(model, bundle_settings(path / SETTINGS), profile if profile.is_file() else None)

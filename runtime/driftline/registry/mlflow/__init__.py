"""The model registry of an MLflow tracking server."""

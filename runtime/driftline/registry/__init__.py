"""Sources of model versions: folders, files and MLflow, with the same versions and aliases."""

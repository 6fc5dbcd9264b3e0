"""Where versions of models come from: a folder today, named versions and aliases anywhere."""

"""The data as it was when the model was trained: the profile that drift is measured against."""

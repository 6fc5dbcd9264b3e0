"""What the data was when the model was made: the profile that drift is measured from."""

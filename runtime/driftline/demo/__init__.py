"""The demo: a model of real flights is trained, registered, served, and replaced under load."""

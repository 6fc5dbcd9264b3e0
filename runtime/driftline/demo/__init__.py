"""The demo: a model of real flights, trained, registered, served, asked, and renewed under load."""

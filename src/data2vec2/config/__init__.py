"""The configuration of a run: frozen dataclasses, standard library only."""

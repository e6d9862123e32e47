"""The loop and what it stands on; it knows tasks, not models."""

"""What the loop trains."""

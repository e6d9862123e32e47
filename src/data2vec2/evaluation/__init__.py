"""What a frozen model is worth."""

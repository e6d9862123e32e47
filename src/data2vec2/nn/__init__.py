"""Building blocks: torch only, plain arguments."""

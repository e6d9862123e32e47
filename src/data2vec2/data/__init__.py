"""From files to batches: sources become `Records`, readers turn records into arrays."""

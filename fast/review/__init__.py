"""What a person has decided about the pairs of a finished run."""

"""What pictures look like, as numbers: the shipped encoder, its features, and how near a defect is to real ones."""

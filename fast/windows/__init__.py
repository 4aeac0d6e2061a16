"""Parts of large images: regions around defects, tiles."""

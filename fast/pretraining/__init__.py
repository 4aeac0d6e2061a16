"""Training the shipped base from nothing within a time budget: drawing, first stage, latent diffusion, FARM."""

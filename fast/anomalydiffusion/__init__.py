"""AnomalyDiffusion (Hu et al. 2024): per-type appearance vectors and location vectors of the mask, on a frozen base."""

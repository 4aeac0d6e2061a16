"""What the methods on a latent-diffusion base share: prompts, adapters, the decoder's fit, sampling."""

"""UltraImage: images far above the training resolution of a diffusion transformer."""

"""mae: masked autoencoding of images (arXiv 2111.06377). See docs/methods/mae.md."""

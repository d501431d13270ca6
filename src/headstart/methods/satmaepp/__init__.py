"""satmaepp: masked autoencoding of satellite images at several scales (arXiv 2403.05419). See docs/methods/satmaepp.md."""

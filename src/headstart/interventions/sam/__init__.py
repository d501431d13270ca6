"""sam: sharpness-aware minimisation (arXiv 2010.01412). See docs/methods/sam.md."""

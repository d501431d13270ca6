"""croco: completing one view of a scene with the help of another (arXiv 2210.10716, 2211.10408). See docs/methods/croco.md."""

"""Re-warming: the learning rate of a continued run. See docs/methods/rewarm.md."""

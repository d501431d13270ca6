"""Images: sources -> store -> rows, and what is done with a batch on the device."""

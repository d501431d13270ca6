"""Documents of texts with images in their places: read, prepared, packed into rows."""

"""From annotation files and images to batches of fixed shape."""

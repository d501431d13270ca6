"""What every floor stands on: errors, configuration, run folders, counter-based randomness, progress lines."""

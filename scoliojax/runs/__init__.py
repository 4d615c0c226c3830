"""A run: its directory, recipe, network and data, and the options that commands share."""

"""A run: its directory, its recipe, its network and its data, and what every command begins with."""

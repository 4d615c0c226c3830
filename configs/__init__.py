"""What a run is: one file a recipe, each with its source, what to expect, and the command."""

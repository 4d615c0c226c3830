"""Recipes: one file for each kind of run, with its source, what to expect, and the command."""

"""`python -m scoliojax.report`: one page with everything that is known of a run."""

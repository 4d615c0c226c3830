"""Bytes to batches: raw masks, released pickles and synthetic walkers become numpy batches. Never imports jax or flax."""

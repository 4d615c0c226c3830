"""From logits to scores with intervals, figures and text. Never imports jax."""

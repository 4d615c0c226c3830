"""ScoNet and ScoNet-MT in JAX and Flax: gait-based scoliosis screening from silhouettes."""

__version__ = "0.1.0"

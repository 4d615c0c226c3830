"""ScoNet and ScoNet-MT in JAX and Flax: gait-based scoliosis screening from silhouettes."""

__version__ = "0.1.0"

from data_pipelines.interrupts import end_in_one_line

end_in_one_line()

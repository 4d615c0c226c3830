"""ScoNet and ScoNet-MT in JAX and Flax: gait-based scoliosis screening from silhouettes."""

__version__ = "0.1.0"

import data_pipelines  # noqa: F401, from here on Ctrl-C and SIGTERM end a command in one line

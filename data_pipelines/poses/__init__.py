"""Poses: the joints of a walk, what is computed from them without a network, and maps that a network reads."""

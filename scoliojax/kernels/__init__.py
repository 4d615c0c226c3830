"""Convolution, batch norm, pooling and triplet sums, with gradients written by hand."""

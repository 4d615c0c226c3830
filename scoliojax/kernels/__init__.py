"""How the network's parts are computed: convolution, batch norm, pooling, triplet sums, and all gradients written by hand."""

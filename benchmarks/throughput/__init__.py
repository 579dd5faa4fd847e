"""Parts of the throughput benchmark: the pairs, the plain loop, ours, the measuring, the tables."""

"""A checkpoint: what is in it, its blocks run one at a time, and statistics of them."""

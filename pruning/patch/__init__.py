"""Patches: the folder that pruning writes, and base + patch as weights or as an exported checkpoint."""

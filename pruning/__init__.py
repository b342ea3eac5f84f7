"""Pruning: pure tensor work on a checkpoint. Imports neither Ray, vLLM, MLflow nor any other package of the project."""

"""Pruning: pure tensor work on a checkpoint. Imports neither ray, vllm, mlflow, eval, workers nor
orchestrator.
"""

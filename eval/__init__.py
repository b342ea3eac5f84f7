"""Evaluation: budgets, prompts, benchmarks, grading, metrics, comparison. Imports no Ray, vLLM, MLflow or torch."""

"""Pure evaluation: budgets, prompts, benchmarks, grading, metrics, comparison. No Ray, no vLLM, no MLflow,
no torch.
"""

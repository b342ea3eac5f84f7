"""Views of the store: the table, the report, MLflow."""

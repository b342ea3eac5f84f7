"""What runs on a machine: pruning, evaluating and grading workers, and the engines they drive."""

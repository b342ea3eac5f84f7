"""What tests have in common: builders, a scripted world, servers that fail on demand, and naive references."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

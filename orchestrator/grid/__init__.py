"""What the user wrote: grid.yaml, parsed, expanded and checked."""

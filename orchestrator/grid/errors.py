"""The one error for what a user got wrong: a grid, or an option of a command."""


class InputError(Exception):
    """Something that cannot be run as written. The message names the location, the rule and the remedy."""

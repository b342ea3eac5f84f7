"""The one error for what a user got wrong: a grid, or an option of a command."""


class InputError(Exception):
    """Input that cannot be run as written. The message gives the location, the rule and the remedy."""

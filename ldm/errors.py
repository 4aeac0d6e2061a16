"""The one error a user may see as a single line."""


class UserError(Exception):
    """Bad input. The message names the thing, the value it had and the remedy; a door prints it and exits with 2."""

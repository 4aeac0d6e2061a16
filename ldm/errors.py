"""The one error a user may see as a single line, and what several readers say of the same slip."""

LFS_REMEDY = "is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"


class UserError(Exception):
    """Bad input. The message names the thing, the value it had and the remedy; a door prints it and exits with 2."""


def is_lfs_pointer(head: bytes) -> bool:
    """True for the first bytes of the text that a clone without Git LFS has in a large file's place."""
    return head.startswith(b"version https://git-lfs")

"""A secret that is kept in a file of this computer: read, and never shown."""

from __future__ import annotations

import os
import stat

from tasks.cluster.errors import Refused

#: open-iscsi keeps no longer ones.
LONGEST = 255


def read(path: str, purpose: str) -> str:
    """The only line of the file, which nobody else may be able to read.

    `purpose` completes "the file ... with". Raises Refused, whose words never contain what is in the file.
    """
    what = f"The file {path} with {purpose}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        hint = f"Make it: (umask 077; cat > {path}), then type the secret, Return and Ctrl-D."
        raise Refused(f"{what} cannot be read: {error.strerror}.", hint) from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(
                f"{what} is no regular file.", "Name a file that holds the secret as its only line."
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise Refused(f"{what} has mode {mode:04o}: others could read it.", f"Type: chmod 600 {path}")
        data = file.read(2 * LONGEST)
    lines = data.splitlines()
    if len(lines) != 1 or not lines[0].strip():
        raise Refused(f"{what} has not exactly one line.", "Write the secret into it, and nothing else.")
    line = lines[0]
    if len(line) > LONGEST or any(not 0x21 <= byte <= 0x7E for byte in line):
        allowed = f"Choose one of at most {LONGEST} letters, digits and signs of ASCII, without spaces."
        raise Refused(f"{what} holds something that open-iscsi cannot keep.", allowed)
    return line.decode("ascii")

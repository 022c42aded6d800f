"""What a full disk says, whichever way it is full."""

import errno

# No room is left; a quota is used up; a file may not be as large.
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

"""Error numbers of a full disk, for checkpoints and for dataset uploads."""

import errno

# No space left, quota exceeded, file size limit exceeded.
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

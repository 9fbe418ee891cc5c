"""Runs one command and prints what it took, as JSON: {"cpu", "seconds", "peak", "status"}.

    child.py WORD...      each WORD that is {parent} becomes the number of this process

`peak` is the most memory that the command had at once, in bytes. The kernel counts into it what
the process held that started it: that is why this one is small, and imports nothing.
"""

import os
import sys
import time

command = [str(os.getpid()) if word == "{parent}" else word for word in sys.argv[1:]]
began = time.monotonic()
pid = os.posix_spawn(command[0], command, os.environ)
_, status, used = os.wait4(pid, 0)
seconds = time.monotonic() - began
cpu = used.ru_utime + used.ru_stime
code = os.waitstatus_to_exitcode(status)
print(
    f'\n{{"cpu": {cpu:.6f}, "seconds": {seconds:.6f}, "peak": {1024 * used.ru_maxrss}, '
    f'"status": {code}}}'
)

"""Memory that starting needed: what may be unmapped, and that nothing is lost by it."""

import subprocess
import sys

from edge_agent.giving_back import clean_code

SMAPS = """\
1000-3000 r--p 00000000 08:01 11  /usr/lib/a library.so
Size:                  8 kB
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
3000-9000 r-xp 00002000 08:01 11  /usr/lib/a library.so
Anonymous:             0 kB
9000-a000 r--p 00008000 08:01 11  /usr/lib/a library.so
Anonymous:             4 kB
a000-b000 rw-p 00009000 08:01 11  /usr/lib/a library.so
Anonymous:             0 kB
b000-f000 r-xp 00000000 08:01 12  /usr/lib/relocated.so
Anonymous:             8 kB
10000-20000 r--p 00000000 08:01 13  /var/lib/weights.bin
Anonymous:             0 kB
20000-30000 rw-p 00000000 00:00 0  [heap]
Anonymous:            40 kB
30000-31000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
31000-32000 r-xp 00000000 00:00 0
Anonymous:             0 kB
"""


def test_only_code_that_nothing_was_written_to_is_given_back():
    assert clean_code(SMAPS) == [(0x1000, 0x2000), (0x3000, 0x6000)]


def test_a_process_works_on_after_it_and_has_less_mapped():
    script = (
        "import json, re, sqlite3, ssl\n"
        "from pathlib import Path\n"
        "from edge_agent.giving_back import give_back\n"
        "def mapped():\n"
        "    text = Path('/proc/self/smaps_rollup').read_text()\n"
        "    sizes = dict(re.findall(r'(Rss|Anonymous): +([0-9]+)', text))\n"
        "    return int(sizes['Rss']) - int(sizes['Anonymous'])\n"
        "before = mapped()\n"
        "give_back()\n"
        "after = mapped()\n"
        "found = sqlite3.connect(':memory:').execute('select 6 * 7').fetchone()[0]\n"
        "print(json.dumps([found, ssl.create_default_context().check_hostname, after < before]))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert said == "[42, true, true]\n"

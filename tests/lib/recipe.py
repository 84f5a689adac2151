#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""recipe.py PAGE.md: the page's commands as a shell script, in their order.

What stands in ```sh is run; a word behind sh is a program that the block needs (it is left out, and says so, where there is none).
What stands in an HTML comment that begins with `before` prepares the files that the page speaks of. A command in the text, `lamina ...`, is
run where it stands; not so `lamina VERB ...`, where a reader fills in a word.
"""
import re
import sys

blocks = re.compile(r"^<!-- before\n(?P<before>.*?)^-->$|^```sh *(?P<needs>\S*)\n(?P<shown>.*?)^```$"
                    r"|^```.*?^```$|`(?P<said>lamina [a-z]+ [^`A-Z]+)`", re.S | re.M)
print("set -euo pipefail")
for block in blocks.finditer(open(sys.argv[1]).read()):
    if block["before"] is not None:
        print(block["before"])
    elif block["needs"]:
        print(f"if command -v {block['needs']} >/dev/null; then\n{block['shown']}else echo left-out {block['needs']}; fi")
    elif block["shown"] or block["said"]:
        print(block["shown"] or block["said"])

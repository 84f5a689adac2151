#!/usr/bin/env bash
# Each option that a verb or a face declares is looked at by the program (tests/lib/options_used.py).
. "$(dirname "$0")/../lib/e2e.sh"
top=$(cd "$(dirname "$0")/../.." && pwd)
used=$top/tests/lib/options_used.py
is "no option is declared and never looked at" python3 "$used" "$top"/tools/*.c

# The checker sees one that is dead: an entry of a table, a place that nothing reads, a letter of a command.
mkdir broken
sed 's/ARG_IMAGE_FORMAT, ARG_IMAGE_OPTIONS/{ARG_DEAD, "dead", NULL, "nothing", 0, false}, &/' "$top"/tools/compact.c >broken/compact.c
sed 's/{ARG_ONCE, NULL, &t->once}/{ARG_ONCE, NULL, \&t->never_read}/' "$top"/tools/top.c >broken/top.c
sed 's/"c:o:rw"/"c:o:rwZ"/' "$top"/tools/io_image.c >broken/io_image.c
python3 "$used" broken/*.c 2>told && bad "dead options are told of"
for one in "compact.c: ARG_DEAD" "top.c: what ARG_ONCE says" "io_image.c: -Z of corwZ"; do
    equal "... and it would be told of ${one%%:*}" "$(grep -c -- "$one" told)" 1
done
exit $failed

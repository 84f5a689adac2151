#!/usr/bin/env bash
# The control socket of a server, through `lamina ctl` and by hand.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
truncate -s 4M a.img
truncate -s 8M b.img
ctl() { "$LAMINA" ctl "$@"; }
serve -f raw --control "$PWD/c" a.img b.img
nbdinfo "$uri" >/dev/null
is "list: exports and sizes" "$(ctl --output=json "$PWD/c" list | jq -c '[.exports[] | [.name, .size, ."read-only"]]')" \
    '[["a.img",4194304,false],["b.img",8388608,false]]'
is "list: what was read is counted" "$(ctl "$PWD/c" list --output=json | jq '.exports[0].reads > 0')" true
check "list for people" bash -c "'$LAMINA' ctl '$PWD/c' list | grep -q '^a.img  *4194304 '"
is "jobs: none" "$(ctl "$PWD/c" jobs)" "no jobs"
check "an unknown job is an error" bash -c "! '$LAMINA' ctl '$PWD/c' show convert-7"
check "help: what the server can be asked" bash -c "'$LAMINA' ctl '$PWD/c' help | grep -q '^speed  *limits a job'"
for words in "pause convert-7" "resume convert-7" "cancel convert-7" "speed convert-7 10M"; do
    # shellcheck disable=SC2086
    is "$words: no such job" "$(ctl "$PWD/c" $words 2>&1)" "lamina: there is no job 'convert-7'"
done
check "speed without a number is misuse" bash -c "'$LAMINA' ctl '$PWD/c' speed convert-7 2>&1 | grep -q 'wants the job.s id and bytes per second'"
python3 - "$PWD/fake" "$LAMINA" <<'END' && ok "what is asked is what the protocol wants" || fail "what is asked is what the protocol wants"
import json, socket, subprocess, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
s.settimeout(10)
for words, want in (("pause a-1", {"do": "pause", "id": "a-1"}), ("resume a-1", {"do": "resume", "id": "a-1"}),
                    ("speed a-1 10M", {"do": "speed", "id": "a-1", "bytes_per_second": "10M"})):
    p = subprocess.Popen([sys.argv[2], "ctl", sys.argv[1]] + words.split())
    c, _ = s.accept()
    assert json.loads(c.makefile().readline()) == want, words
    c.sendall(b'{"ok": true, "result": null}\n')
    assert p.wait(10) == 0
END
check "an unknown question names the nearest" bash -c "'$LAMINA' ctl '$PWD/c' shutdwn 2>&1 | grep -q \"'shutdown'\""
check "a socket nobody answers on is an error" bash -c "! '$LAMINA' ctl '$PWD/nothing' list"
python3 - "$PWD/c" <<'END' && ok "nonsense on the control socket harms nobody" || fail "nonsense on the control socket harms nobody"
import json, socket, sys
for junk in (b"", b"\n", b"{", b"x" * 100000, b"[" * 60000 + b"\n", b'{"do": 7}\n', b'{"do": "none"}\n', b"\xff\n", b'{"do": "list"'):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(sys.argv[1])
    try:
        s.sendall(junk)
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except ConnectionError:
        pass
    s.close()
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect(sys.argv[1])
s.sendall(b'{"do": "list"}\n{"do": "nonsense"}\n')
f = s.makefile()
assert json.loads(f.readline())["ok"] is True
assert json.loads(f.readline())["ok"] is False
END
kill -KILL "$server"
wait "$server" 2>/dev/null
serve -f raw --control "$PWD/c" a.img b.img
check "a killed server's control socket is replaced" ctl "$PWD/c" list
check "shutdown" ctl "$PWD/c" shutdown
wait "$server"
is "which ends the server cleanly" $? 0
server=
[ ! -e "$sock" ] && [ ! -e c ] && ok "and both sockets are gone" || fail "and both sockets are gone"
exit $bad

# Shared by the scripts in tests/e2e/nbd_*.sh: a server that stops with the script, and how results are said.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$top/tests/lib/soon.sh"
case $BUILD in /*) build=$BUILD ;; *) build=$top/$BUILD ;; esac
load=$build/bench/nbd_load
sock=$PWD/s
uri="nbd+unix:///?socket=$sock"
server=
bad=0

ok() { echo "ok - $1"; }
fail() {
    echo "FAIL - $1"
    bad=1
}
# check WHAT COMMAND...: ok if the command succeeds.
check() {
    local what=$1
    shift
    if "$@" >check.log 2>&1; then
        ok "$what"
    else
        fail "$what"
        sed 's/^/    /' check.log | tail -n 15
    fi
}
is() { # is WHAT GOT WANTED
    if [ "$2" = "$3" ]; then ok "$1"; else fail "$1: got '$2', wanted '$3'"; fi
}

# start READY COMMAND...: starts a server and waits until READY, a command, succeeds.
start() {
    local ready=$1
    shift
    : >server.log
    "$@" >server.log 2>&1 &
    server=$!
    for _ in $(seq 1500); do
        $ready && return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.02
    done
    fail "the server did not start: $*"
    cat server.log
    exit 1
}
# It says its URI when it listens; a socket that is there may be a dead server's.
announced() { grep -q '^nbd' server.log 2>/dev/null; }
serve() { start announced "$LAMINA" serve --socket "$sock" "$@"; }

# Stops it as an administrator would; the exit status is the server's.
stop() {
    local rc
    kill -TERM "$server"
    wait "$server"
    rc=$?
    server=
    return $rc
}
# A killed server's rings are taken down after it is gone, and its files are locked until then: seconds, on a busy machine.
let_go() { # FILE FORMAT
    for _ in $(seq 600); do
        qemu-img info -f "$2" "$1" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
}
alive() { kill -0 "$server" 2>/dev/null && nbdinfo --size "$uri" >/dev/null 2>&1; }

trap '[ -n "$server" ] && kill -KILL "$server" 2>/dev/null' EXIT

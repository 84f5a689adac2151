# Sourced by tests/e2e/*.sh: what they share. $LAMINA is the program; the faces lie beside it.
set -u
export LC_ALL=C
. "$(dirname "${BASH_SOURCE[0]}")/soon.sh"
face=$(dirname "$LAMINA")/compat/qemu-img
failed=0

ok() { echo "ok - $1"; }
bad() { echo "FAIL - $1${2:+: $2}"; failed=1; }

# is NAME COMMAND...: the command succeeds and says nothing on stderr.
is() {
    local name=$1
    shift
    if "$@" >.out 2>.err && [ ! -s .err ]; then ok "$name"; else bad "$name" "rc $?, $(head -c 300 .err) $(tail -c 200 .out)"; fi
}

# fails NAME RC WORDS COMMAND...: it ends with RC and its stderr holds the words.
fails() {
    local name=$1 want=$2 words=$3 rc=0
    shift 3
    "$@" >.out 2>.err || rc=$?
    if [ "$rc" = "$want" ] && grep -qF -- "$words" .err; then ok "$name"; else bad "$name" "rc $rc, $(head -c 300 .err)"; fi
}

# killed_after SECONDS COMMAND...: killed at that moment, and gone: `timeout -s KILL` kills itself too, and does not wait for
# the command, which may then hold its locks a moment longer.
killed_after() {
    local pid timer
    "${@:2}" 2>&3 &
    pid=$!
    sleep "$1" &
    timer=$!
    wait -n $pid $timer
    kill -KILL $pid $timer
    wait $timer
    wait $pid
} 3>&2 2>/dev/null

# equal NAME A B
equal() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "'$2' is not '$3'"; fi; }

hash_of() { b2sum <"$1" | cut -d' ' -f1; }

# A disk with a real file system made from files of this machine: make_disk FILE SIZE_MIB [TREE...]
make_disk() {
    local file=$1 size=$2
    shift 2
    [ $# -gt 0 ] || set -- /usr/share/perl /usr/include /usr/lib/git-core
    rm -rf .tree && mkdir .tree
    local room=$((size * 6 / 10)) used=0 folder mib
    for folder in "$@"; do
        [ -d "$folder" ] || continue
        mib=$(du -sxm "$folder" 2>/dev/null | cut -f1)
        [ $((used + mib)) -le $room ] || continue
        used=$((used + mib))
        cp -a "$folder" .tree/ 2>/dev/null || true
    done
    truncate -s "${size}M" "$file"
    mke2fs -q -t ext4 -F -d .tree "$file"
    rm -rf .tree
}

# they_do FILE [FORMAT]: the lines of the file `script`, as qemu-io does them.
they_do() {
    local args=() line
    while read -r line; do args+=(-c "$line"); done <script
    qemu-io -f "${2:-qcow2}" --discard unmap "${args[@]}" "$1"
}

# we_do FILE: the same lines, by way of our server.
we_do() {
    rm -f sock pid
    "$LAMINA" serve -q -f qcow2 --once --socket "$PWD/sock" --pid-file pid "$1" &
    local server=$! n
    soon [ -e pid ]
    they_do "nbd+unix:///?socket=$PWD/sock" raw && wait $server
}

# The same JSON, but for what two runs cannot share.
json_shape() { jq -S 'walk(if type == "object" then del(."actual-size") else . end)'; }

# A program of QEMU's that makes a LUKS key slot: it measures how fast the machine is, and gives up where a busy one does not let it.
patient() {
    local n
    for n in $(seq 12); do
        "$@" 2>.patient && return
        sleep 0.3
    done
    cat .patient >&2
    return 1
}

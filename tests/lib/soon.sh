# soon COMMAND...: waits until the command succeeds, half a minute at most: a busy machine may let nobody run for seconds.
soon() {
    local _
    for _ in $(seq 1500); do
        "$@" && return
        sleep 0.02
    done
    return 1
}

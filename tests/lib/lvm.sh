# Sourced by tests/e2e/lvm*.sh, behind e2e.sh: lvm2 over loop devices, and its lists beside ours.
PATH=$PATH:/sbin:/usr/sbin
export LVM_SUPPRESS_FD_WARNINGS=1
loops=
drop_loops() { [ -z "$loops" ] || losetup -d ${loops//,/ } 2>/dev/null; loops=; }
trap drop_loops EXIT
take_loops() { # IMAGE...: sets loops; false where there are none to be had
    local one
    for one; do
        one=$(losetup -f --show "$one" 2>/dev/null) || return 1
        loops=$loops${loops:+,}$one
    done
}
lvm2() { lvm "$@" --driverloaded n --devices "$loops" 2>.said; } # what it says besides: .said
# KIND FILTER. X is what lvm2 says of a volume's state where there is no device-mapper to ask.
rows() { jq -c ".report[0].$1[]|$2|if .lv_attr then .lv_attr |= gsub(\"X\"; \"-\") else . end" | sort; }
agree() { # NAME SET: lvm2's lists and ours are the same
    equal "$1: pvs" "$("$LAMINA" pv list --output json "$2" | rows pv 'del(.pv_name)')" "$(lvm2 pvs --reportformat json | rows pv 'del(.pv_name)')"
    equal "$1: vgs" "$("$LAMINA" vg list --output json "$2" | rows vg .)" "$(lvm2 vgs --reportformat json | rows vg .)"
    equal "$1: lvs" "$("$LAMINA" lv list -a --output json "$2" | rows lv .)" \
        "$(lvm2 lvs -a --reportformat json -o lv_name,vg_name,lv_attr,lv_size,pool_lv,origin | rows lv .)"
}
says() { # NAME WORDS COMMAND...
    local name=$1 words=$2
    shift 2
    if "$@" >.out 2>.err && grep -qF -- "$words" .out; then ok "$name"; else bad "$name" "$(head -c 300 .err) $(head -c 300 .out)"; fi
}
agrees() { # SPEC: a scrub finds nothing
    "$LAMINA" raid scrub "$1" | grep -q "All copies and parity agree"
}

# What a script in a guest begins with before it uses LVM2: its settings; settle VG, which waits until all is in sync;
# check_and_write VG VOLUME..., which has copies and parity compared (lines "state"), then writes job/noise (lines "later").
lvm_guest() {
    cat <<'END'
mkdir -p /etc/lvm /run/lvm /run/lock/lvm
modprobe -a dm-mod dm-raid raid1 raid456 raid10 raid0
cat >/etc/lvm/lvm.conf <<C
devices { use_devicesfile=0 dir="/dev" scan=["/dev"] }
activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 }
C
settle() {
    for i in $(seq 60); do
        lvm lvs --noheadings -o sync_percent "$1" | grep -v '^ *100.00 *$' | grep -q '[0-9]' || return 0
        sleep 1
    done
}
check_and_write() {
    local vg=$1 n
    shift
    for n; do lvm lvchange -q --syncaction check "$vg/$n"; done
    sleep 5
    settle "$vg"
    lvm lvs --noheadings -o name,raid_mismatch_count,health_status "$vg" | sed 's/^/state /'
    for n; do
        head -c 99999 /job/noise | dd of="/dev/$vg/$n" bs=777 seek=99 conv=fsync,notrunc 2>/dev/null
        echo "later $n $(sha256sum <"/dev/$vg/$n")"
    done
}
END
}

# Sourced by tests/e2e/*.sh that need a kernel of their own: Debian's, booted under QEMU (by interpretation: no KVM is needed) with what is
# named and nothing else.
kernel=$(ls -v /lib/modules 2>/dev/null | tail -n 1)

# guest_ready: 0 if there is all that it takes, else it says what is missing.
guest_ready() {
    local missing="" one
    for one in qemu-system-x86_64 cpio depmod modprobe busybox; do
        command -v $one >/dev/null || [ -x /sbin/$one ] || missing="$missing $one"
    done
    [ -n "$kernel" ] && [ -r "/boot/vmlinuz-$kernel" ] || missing="$missing a kernel"
    [ -z "$missing" ] || { echo "skip - no guest: there is no$missing" && return 1; }
}

# guest_only PROGRAM...: ends the script where no guest is to be booted, or where it or one of the programs is not there.
guest_only() {
    local one
    [ -n "${LAMINA_LONG:-}" ] || { echo "skip - check-long boots a guest" && exit 77; }
    PATH=$PATH:/sbin:/usr/sbin
    guest_ready || exit 77
    for one; do command -v "$one" >/dev/null || { echo "skip - there is no $one" && exit 77; }; done
}

# guest_build PROGRAMS MODULES: makes guest.cpio here; programs by path, with their libraries; modules with what they need.
guest_build() {
    local root one file
    root=$(mktemp -d "$PWD/guest.XXXXXX") || return 1
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,run,tmp,lib/modules/$kernel}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for one in $("$root/bin/busybox" --list); do [ "$one" = busybox ] || ln -s busybox "$root/bin/$one"; done
    for one in $1 "$(command -v modprobe || echo /sbin/modprobe)"; do
        rm -f "$root/bin/${one##*/}"
        cp -L "$one" "$root/bin/${one##*/}"
        for file in $(ldd "$one" | grep -o '/[^ ]*'); do mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file"; done
    done
    ln -s /bin/modprobe "$root/sbin/modprobe" # the kernel's own name for it
    for one in $2 virtio_pci virtio_blk; do
        PATH=$PATH:/sbin modprobe -S "$kernel" --show-depends "$one" 2>/dev/null | awk '$1 == "insmod" {print $2}'
    done | sort -u | while read -r file; do mkdir -p "$root${file%/*}" && cp "$file" "$root$file"; done
    cp /lib/modules/"$kernel"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$kernel/"
    PATH=$PATH:/sbin depmod -b "$root" "$kernel"
    cat >"$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin DM_DISABLE_UDEV=1
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev && mkdir -p /run/cryptsetup
modprobe virtio_pci && modprobe virtio_blk
cd /job && sh ./script >/dev/ttyS1 2>&1 </dev/null
echo "guest ended with $?" >/dev/ttyS1
poweroff -f
INIT
    cat >"$root/bin/die" <<'DIE'
#!/bin/sh
# For scripts of jobs: the machine is gone, and no driver hears of it before.
echo "guest ended with 0" && sleep 1
echo b >/proc/sysrq-trigger
sleep 60
DIE
    chmod +x "$root/init" "$root/bin/die"
    (cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) >guest.cpio
    rm -rf "$root"
}

# guest_run SECONDS FOLDER DISK...: runs FOLDER/script in a guest, which sees FOLDER as /job and the disks (raw, qcow2:FILE, or nbd:SOCKET
# of a server) as /dev/vda, vdb, ...; its output on stdout, and in .said while it runs; its exit status, or 124. The kernel does not measure
# its timer: on a busy machine an interpreted one fails that, and panics.
guest_run() {
    local seconds=$1 folder=$2 disk status words=()
    shift 2
    for disk; do
        case $disk in
            qcow2:*) words+=(-drive "if=virtio,format=qcow2,cache=unsafe,file=${disk#qcow2:}") ;;
            nbd:*) words+=(-drive "if=virtio,format=raw,cache=none,file=nbd+unix:///?socket=${disk#nbd:}") ;;
            *) words+=(-drive "if=virtio,format=raw,cache=unsafe,file=$disk") ;;
        esac
    done
    mkdir -p .job/job && cp "$folder"/* .job/job/
    { (cd .job && find job | cpio -o -H newc --quiet -R 0:0) && cat guest.cpio; } >.initrd
    rm -rf .job .said
    timeout "$seconds" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 -accel tcg -cpu max -m 512 \
        -kernel "/boot/vmlinuz-$kernel" -initrd .initrd -append "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check" -serial file:.console \
        -serial file:.said "${words[@]}" >.qemu 2>&1 </dev/null
    status=$(sed -n 's/^guest ended with \([0-9]*\).*/\1/p' .said 2>/dev/null)
    grep -av '^guest ended with' .said
    [ -n "$status" ] || tail -n 20 .console .qemu >&2
    return "${status:-124}"
}

#!/usr/bin/env bash
# The Debian packages: built, looked at by lintian, unpacked and run; and, where we are root and there is debootstrap, installed on a fresh
# Debian 12 in a folder, which does the main job. It compiles everything anew, so only in check-long.
. "$(dirname "$0")/../lib/e2e.sh"
top=$(cd "$(dirname "$0")/../.." && pwd)

[ -n "${LAMINA_LONG:-}" ] || { echo "skip - packages are built in check-long" && exit 0; }
for program in dpkg-buildpackage dh lintian git; do
    command -v $program >/dev/null || { echo "skip - $program is not installed" && exit 0; }
done
mkdir -p build/lamina-0.1
(cd "$top" && git ls-files -z | tar c --null -T -) | tar x -C build/lamina-0.1
cd build
tar czf lamina_0.1.orig.tar.gz --exclude=lamina-0.1/debian lamina-0.1
unset MAKEFLAGS CC CFLAGS BUILD SAN
if (cd lamina-0.1 && dpkg-buildpackage -us -uc -j2) >log 2>&1; then ok "the packages build"; else bad "dpkg-buildpackage" "$(tail -n 3 log)"; fi
equal "lintian has nothing to say" "$(lintian --allow-root -q lamina_0.1-1_*.changes 2>&1)" ""
for deb in lamina_0.1-1 lamina-qemu-compat_0.1-1 lamina-qemu-io_0.1-1; do
    dpkg-deb -x "$deb"_*.deb root || bad "$deb cannot be unpacked"
done
make_disk disk.img 24
is "the installed program converts" root/usr/bin/lamina convert --hash sha256 --expect "$(sha256sum <disk.img | cut -d' ' -f1)" \
    disk.img disk.qcow2
is "and is sound to QEMU" qemu-img check -q disk.qcow2
is "by its other name too" root/usr/bin/qemu-img info disk.qcow2

# A Debian of the packages that every one has, and those that ours name: if dpkg finds one missing, so would anybody's.
names() { dpkg-deb -f lamina_0.1-1_*.deb Depends | tr ',' '\n' | sed 's/^ *//; s/[ (|].*//' | paste -sd,; }
inside() { chroot fresh /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$1"; }
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "skip - a fresh Debian needs root and debootstrap"
elif ! debootstrap --variant=minbase --include="$(names)" bookworm fresh "${LAMINA_MIRROR:-http://deb.debian.org/debian}" >log 2>&1; then
    echo "skip - debootstrap: $(tail -n 1 log)"
else
    cp lamina_0.1-1_*.deb lamina-qemu-*_0.1-1_*.deb disk.img fresh/root/ && rm -f fresh/root/*dbgsym*
    is "all of them are installed on a fresh Debian" inside "dpkg -i /root/*.deb >/dev/null"
    is "there it converts, checks, compares" inside "cd /root && lamina convert disk.img disk.qcow2 && lamina check -q disk.qcow2 && lamina compare -q disk.img disk.qcow2"
    equal "and says what that is" "$(inside 'lamina info --output json /root/disk.qcow2' | jq -r .format)" qcow2
    is "and serves" inside 'cd /root && lamina serve --run "lamina compare -q -F raw \"\$uri\" disk.img" disk.qcow2'
    is "qemu-img and qemu-io are there" inside "cd /root && qemu-img info disk.qcow2 && qemu-io -c 'read 0 4k' disk.qcow2 && qemu-nbd --version"
    is "and the man page" test -s fresh/usr/share/man/man1/lamina-convert.1.gz
    is "all of it is removed again" inside "dpkg -r lamina-qemu-io lamina-qemu-compat lamina >/dev/null"
    equal "and leaves nothing" "$(find fresh/usr fresh/lib/systemd -name '*lamina*' -o -name 'qemu-img*')" ""
fi
depends() { tr ',' '\n' | grep -c .; }
echo "# lamina: $(dpkg-deb -f lamina_0.1-1_*.deb Installed-Size) KiB, $(dpkg-deb -f lamina_0.1-1_*.deb Depends | depends) dependencies;" \
    "qemu-utils: $(dpkg-query -W -f '${Installed-Size}' qemu-utils) KiB," \
    "$(dpkg-query -W -f '${Depends}' qemu-utils | depends) dependencies"
exit $failed

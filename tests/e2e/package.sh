#!/usr/bin/env bash
# The Debian packages: built, looked at by lintian, unpacked and run. It compiles everything anew, so only in check-long.
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
depends() { tr ',' '\n' | grep -c .; }
echo "# lamina: $(dpkg-deb -f lamina_0.1-1_*.deb Installed-Size) KiB, $(dpkg-deb -f lamina_0.1-1_*.deb Depends | depends) dependencies;" \
    "qemu-utils: $(dpkg-query -W -f '${Installed-Size}' qemu-utils) KiB," \
    "$(dpkg-query -W -f '${Depends}' qemu-utils | depends) dependencies"
exit $failed

#!/usr/bin/env bash
# Volumes whose contents lie in caches, or are deduplicated (tests/fixtures/make_lvm_cache): recognised, refused with what to do, and kept.
. "$(dirname "$0")/../lib/e2e.sh"
tar -xJf "$(dirname "$0")/../fixtures/lvm_cache.tar.xz"

refuses() { # NAME VOLUME WORDS
    fails "$1" 1 "$3" "$LAMINA" convert -q -O raw "$2" o.raw
}
refuses "a cache with a pool" pv0.img//vgc/pooled "is of type cache, which is not read here: the newest blocks may lie in its cache alone"
refuses "a cache in one volume" pv0.img//vgc/voled "with lvconvert --uncache"
refuses "a write cache" pv0.img//vgc/written "of type writecache, which is not read here: the newest blocks may lie in its cache alone: take that off with lvconvert --splitcache"
refuses "a cache's pool" pv0.img//vgc/fast_cpool "caches another volume"
refuses "a volume of VDO" pv1.img//vgv/dedup "of type vdo, which is not read here: its blocks are deduplicated and compressed"
refuses "a pool of VDO" pv1.img//vgv/vpool0 "of type vdo-pool"

rm -f o.raw
is "a volume beside them is read" "$LAMINA" convert -q -O raw pv0.img//vgc/plain o.raw
equal "... byte for byte" "$(sha256sum <o.raw)" "$(seq -f "plain %012.0f" 100000 | head -c 1048576 | sha256sum)"
equal "info names all" "$("$LAMINA" info --output=json lvm:pv0.img | jq -c '[."format-specific".data."volume-groups"[0]."logical-volumes"[]|[.name, .type]]')" \
    '[["plain","striped"],["pooled","cache"],["voled","cache+CACHE_USES_CACHEVOL"],["written","writecache"]]'

# --- beside them volumes are made and removed; what is refused stays as it is
text() { pvck --dump metadata pv0.img 2>/dev/null | sed -n '/^logical_volumes/,/^contents/p' | grep -v '^creation_time\|^contents\|^#' | tr -d ' \n'; }
text >before
is "a volume is made" "$LAMINA" lv create -q -n more -L 2m pv0.img//vgc
for one in pooled voled written fast_cpool log_cvol pooled_corig fast_cpool_cdata; do
    fails "$one is not removed" 1 "" "$LAMINA" lv remove -q -y pv0.img//vgc/$one
done
for one in vpool0 vpool0_vdata; do fails "$one is not removed" 1 "" "$LAMINA" lv remove -q -y pv1.img//vgv/$one; done
fails "nor renamed" 1 "not changed here" "$LAMINA" lv rename -q pv0.img//vgc/pooled other
head -c 2M /dev/urandom >more.raw
is "it is written to" "$LAMINA" convert -q -n -f raw -O raw more.raw pv0.img//vgc/more
is "it is removed" "$LAMINA" lv remove -q -y pv0.img//vgc/more
text >after
is "the text says of the others what it did" cmp before after
exit $failed

/* SPDX-License-Identifier: BSD-3-Clause */
/* block.h - devices, drivers, and the one checked waist between layers.
 *
 * A *device* is one open layer; a *driver* is a kind of device: a const table. Layers never call a
 * neighbour's table, they call the co_blk_ and blk_ functions here, which assert the contract once,
 * split and align requests, and know the defaults of what a driver leaves out. All offsets and
 * sizes are bytes; sizes are exact (need not be multiples of anything).
 *
 * Rules for every driver (docs/block.md has the reasons):
 *  B1 Requests arrive clipped to the size and split/aligned to the limits the driver declares;
 * read-modify-write of odd edges is done here, under a range lock. B2 Overlapping writes in flight:
 * either order, never a mix below 512 bytes. B3 A failed write leaves old or new data in each
 * sector, metadata consistent; any failed part fails the request. B4 Completion is not durability:
 * only flush (or FUA) is. B5 Memory shows a change last: after everything that can fail. B6 A
 * driver never opens a name: its opener gives it children. B7 Requests own their buffers to the
 * end; closing waits for the last request.
 *
 * Everything runs at the device's home worker; called elsewhere, the waist hops there. resolve runs
 * on any worker. */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include "block/err.h"
#include "block/host.h"
#include "block/option.h"
#include "block/vec.h"

struct blk_device;
struct blk_driver;
struct blk_opener; /* resolver.h */

enum blk_flags {
    BLK_FUA = 1, /* durable when it returns, with the metadata that finds it */
    BLK_COMPRESSED =
        2, /* write: store compressed where the format can; whole clusters, else -EINVAL */
    BLK_MAY_UNMAP = 4,   /* write_zeroes: space may be given back */
    BLK_NO_FALLBACK = 8, /* write_zeroes: fast or -ENOTSUP, never by writing zeroes */
};

enum blk_open_flags {
    BLK_OPEN_WRITE = 1,
    BLK_OPEN_FRESH =
        2, /* just created by the caller, nobody relies on it: no order between writes, no flush
              unless asked, and not recognisable as an image until co_blk_complete() */
    BLK_OPEN_NO_BACKING = 4,  /* do not open references to other files; what needs them answers
                                 -ENOTSUP or null facts */
    BLK_OPEN_FORCE_SHARE = 8, /* -U: take no locks (read-only only) */
    BLK_OPEN_CHECK = 16, /* for check and repair: open as much of a damaged image as can be read */
    BLK_OPEN_FACTS = 32, /* only co_blk_info() follows: what takes long to find out may be estimated
                          */
    BLK_OPEN_NO_DATA = 64, /* only facts are asked for: an encrypted image needs no key, and answers
                              -ENOKEY to reads and writes */
    BLK_OPEN_PART = 128,   /* of a reference: it is a part of the image itself, which is opened with
                              NO_BACKING too, unless only facts are asked for */
};

struct blk_limits {
    uint32_t request_align; /* offset and length of reads and writes; 1: any */
    uint32_t memory_align;  /* of buffers */
    uint64_t max_transfer;  /* bytes per read or write; 0: no limit */
    uint64_t optimal_transfer;
    uint32_t zero_align; /* of write_zeroes that are fast; 1: any */
    uint64_t discard_granularity;
    uint32_t cluster_size; /* what info prints; 0: none */
    bool fresh_reads_zero; /* never written space reads as zero (false: block devices, LVs, RAID) */
    bool discard_reads_zero;
    bool can_zero_fast; /* write_zeroes with NO_FALLBACK succeeds as a rule */
    bool can_unmap;
    bool never_compressed; /* BLK_COMPRESSED is refused though the driver can (external data) */
    bool growable; /* writes, zeroes and copies past the size extend it (files that images live in);
                      what lies between reads as zero. Never of a device that guests see */
};

/* Where bytes lie: resolve's answer. Either @child (ask it next) or @file (the bottom). */
struct blk_place {
    struct blk_device *child;
    struct host_file *file;
    uint64_t offset; /* in child or file */
    uint64_t bytes;  /* that lie together there, from the asked offset on; at most what was asked */
    bool redundant;  /* a layer on the way has them elsewhere too: who cannot read them there asks
                        co_read */
};

enum blk_extent_flags {
    BLK_EXT_DATA = 1, /* bytes are stored and must be read */
    BLK_EXT_ZERO = 2, /* reads as zero */
    BLK_EXT_ALLOCATED =
        4, /* this layer determines the contents (data or zero); else the backing device does */
    BLK_EXT_COMPRESSED = 8,
    BLK_EXT_PLACED = 16, /* child and child_offset are known */
    /* The child's own status refines this one (raw, fixed images). Alone: the child's answer is the
     * answer. With DATA: the child's zeroes are zeroes here too. Needs PLACED. */
    BLK_EXT_RECURSE = 32,
};
struct blk_extent {
    unsigned flags;
    uint64_t bytes;
    struct blk_device *child;
    uint64_t child_offset;
};

/* Facts for people and JSON. Strings are owned (mem_free via blk_info_drop()). */
struct blk_info {
    uint64_t virtual_size, actual_size; /* actual: on disk; UINT64_MAX: unknown */
    uint32_t cluster_size;              /* 0: none */
    uint64_t vm_state_offset;           /* where the state of a VM would lie; 0: nowhere */
    bool encrypted, compressed, dirty, corrupt;
    bool has_dirty;   /* the format can say dirty-flag */
    bool has_bitmaps; /* the image can hold persistent bitmaps */
    char *backing_name, *backing_format, *full_backing_name;
    json_t *specific;            /* "format-specific" data; NULL: none */
    json_t *snapshots;           /* array in qemu-img's shape; NULL: none */
    uint64_t snapshots_left_out; /* there are so many more that they are only counted */
};
void blk_info_drop(struct blk_info *i);

/* One walk over all metadata. Messages go to @say as they are found. */
struct blk_check {
    bool fix_leaks, fix_errors; /* in */
    bool data;                  /* in: read and inflate all data as well; the waist does that */
    void (*say)(struct blk_check *c, const char *sentence); /* in; may be NULL */
    void *arg;
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t read_errors, bad_packed; /* clusters; also among check_errors and corruptions */
    uint64_t image_end, total_clusters, allocated_clusters, fragmented_clusters,
        compressed_clusters;
};

/* A moment of a device that its image keeps. Of create only name, date and the VM's facts count;
 * strings are the owner's (blk_snapshots_drop() for a list). */
struct blk_snapshot {
    char *id, *name;
    uint64_t vm_state_bytes, date_sec, vm_clock_nsec;
    uint32_t date_nsec;
    uint64_t icount;       /* UINT64_MAX: none */
    uint64_t virtual_size; /* of the disk then */
};

/* A persistent dirty bitmap of an image: which granules were changed since it was made or cleared,
 * while it was enabled. */
struct blk_bitmap {
    char *name;
    uint64_t granularity; /* bytes, a power of two */
    bool enabled;         /* records what changes */
    bool inconsistent;    /* who wrote last did not store it: it can only be removed */
    bool foreign;         /* has features that are not known here: kept, can only be removed */
};
enum blk_bitmap_action {
    BLK_BITMAP_ADD, /* nothing dirty; enabled */
    BLK_BITMAP_REMOVE,
    BLK_BITMAP_CLEAR, /* nothing dirty */
    BLK_BITMAP_ENABLE,
    BLK_BITMAP_DISABLE,
    BLK_BITMAP_MERGE, /* what another one of a disk of the same size says is dirty in this one too
                       */
};
struct blk_bitmap_change {
    enum blk_bitmap_action action;
    const char *name;
    uint64_t granularity; /* add; 0: the format's choice */
    bool disabled;        /* add: it does not record yet */
    /* Merge: which one, of which device (may be the same). Add: the new one begins with what that
     * says is dirty; without a name nothing is. */
    struct blk_device *source;
    const char *source_name;
};
/* A run of one kind. */
struct blk_bitmap_extent {
    bool dirty;
    uint64_t bytes;
};

/* Redundancy of a device over members: one step of the work that keeps it whole. */
enum blk_sync_kind {
    BLK_SYNC_OWED,   /* what is not redundant yet: resync after a crash, recovery of members */
    BLK_SYNC_CHECK,  /* compares everything; what cannot be read is rewritten */
    BLK_SYNC_REPAIR, /* and makes what differs the same */
};
struct blk_sync {
    enum blk_sync_kind kind; /* in */
    const char *doing;       /* out: what the next step does: "resync", ... (static); NULL: it is
                                all done */
    uint64_t at, total;      /* out: how far that is, bytes; in: 0 before the first step */
    uint64_t mismatches;     /* out: bytes that differed */
};

/* Members that come and go while the device is in use. */
enum blk_member_action {
    BLK_MEMBER_ADD, /* as a spare; what lacks a member takes it */
    BLK_MEMBER_FAIL,
    BLK_MEMBER_REMOVE, /* one that failed, or a spare */
    BLK_MEMBER_RE_ADD, /* in the place it had: refused if more than what changed since would have to
                          be copied. Without a device: all that were opened with the others and
                          left out, or are new, in the places that somebody else keeps for them */
    BLK_MEMBER_REPLACE, /* it serves until a spare has all that it has, then it is out */
};
struct blk_member_change {
    enum blk_member_action action;
    const char *name;          /* of the member as info shows it, or its role; not of add */
    struct blk_device *device; /* add, re-add, replace: the new one; taken, also on failure; open
                                  for writing */
    const char *with;          /* replace without a device: the spare; NULL: any */
};

/* What a device over members grows to: one of the two. */
#define BLK_GROW_MAX UINT64_MAX
struct blk_members_grow {
    unsigned disks; /* members; 0: as many as now */
    uint64_t size;  /* bytes that are used of each; BLK_GROW_MAX: all that they have; 0: as now */
};

struct blk_inner {
    char *name; /* as written behind // */
    char *kind; /* "partition", "snapshot", "volume", ... */
    uint64_t bytes;
};

/* What a device says of the set (an array, a volume group) that it is a member of. */
struct blk_member {
    char set[100];   /* tells it from other sets of the driver; "": the driver sorts that out */
    char name[130];  /* what people call the set; "": nothing */
    char what[100];  /* this member in words: "member 2 of 4 of a raid5" */
    uint64_t wanted; /* so many members make the set whole; 0: not known */
};

/* How many bytes a new image of a format takes (co_blk_measure). */
struct blk_measure {
    const struct opts *opts;   /* in: parsed with the driver's create_options */
    uint64_t size;             /* in: virtual bytes */
    struct blk_device *source; /* in: whose contents it is to hold; NULL: it is empty */
    const json_t *bitmaps;     /* in: the source's, as info shows them; NULL: it can hold none */
    uint64_t required, fully_allocated;
    bool has_bitmaps; /* out: the new image could take them, in bitmap_bytes more */
    uint64_t bitmap_bytes;
};

enum blk_event {
    BLK_EV_RESIZED,
    BLK_EV_LOW_WATER,
    BLK_EV_MEMBER_FAILED,
    BLK_EV_MARKED_CORRUPT,
    BLK_EV_CLOSED, /* the last reference is gone, and now the device; nobody passes it on */
};
struct blk_listener {
    struct blk_listener *next;
    void (*on_event)(struct blk_listener *l, struct blk_device *dev, enum blk_event ev);
};

struct blk_child {
    const char *role; /* "file", "backing", "data", "member" ... */
    struct blk_device *dev;
};

#define BLK_PROBE_HEAD (64 * KiB)
#define BLK_PROBE_TAIL (128 * KiB)
struct blk_probe {
    const uint8_t *head, *tail; /* the first and last bytes of the file */
    size_t head_bytes, tail_bytes;
    uint64_t size;
    const char *name; /* file name or "" */
    bool as_qemu;     /* in the faces: what QEMU 7.2 would say */
};

/* How an image is created: @file is an open, writable, empty device that the new image is written
 * into. */
struct blk_create {
    struct blk_device *file;
    const struct opts *opts;    /* parsed with the driver's create_options */
    uint64_t size;              /* virtual bytes */
    struct blk_device *backing; /* what option backing_file names, for drivers with knows_backing;
                                   NULL: nothing is named. Without what is behind it */
    bool fresh;       /* see BLK_OPEN_FRESH: not flushed, and left unrecognisable until completed */
    const char *name; /* that the image will have; NULL: file's */
    bool beside; /* for co_make_file(): the name is meant from the image's folder, whoever asks */
    /* Makes a further file that the image consists of, or empties it, and opens it for writing;
     * @name is as the image will say it. Gives *out. NULL: there can be none. */
    int (*co_make_file)(const struct blk_create *c, const char *name, struct blk_device **out,
                        struct blk_error *e);
    void *arg; /* its own */
};

/* What open() finds in its device: name, flags, size 0, one reference; it fills state, size, limits
 * and children. */
struct blk_driver {
    const char *name;        /* "qcow2" */
    const char *title;       /* one line for -o help and the README's table */
    const char *bundle_file; /* an image is a folder that holds a file of this name, which says what
                                the rest is: the folder's name means that file; NULL: none is */
    const char *mend;       /* what a person can do about one that is too damaged to be opened, with
                               FILE for its name; NULL: get it from elsewhere */
    const char *extensions; /* "qcow2 qcow2c": file name endings, blank separated; NULL: none */
    bool is_format;         /* an image format: probed, created, named with -f/-O */
    bool is_filter;         /* what it leaves out goes to its children through resolve */
    bool is_layer;          /* x//NAME opens it over x: its name, then options behind commas */
    bool is_plain;          /* byte n of the disk is byte n of its file, which is as long */
    bool compresses;        /* co_write takes BLK_COMPRESSED */
    bool only_inner;     /* holds devices and is none itself: who asks for it is told to name one */
    bool inner_is_image; /* what is inside is an image's file: its format is probed */
    bool measure_is_ours; /* QEMU cannot measure the format: the faces say so */
    bool check_is_bare;   /* QEMU's check of the format counts no clusters: the faces' neither */
    bool knows_backing;   /* co_create writes down what identifies the backing image (a UUID, a CID,
                             times), so it is opened for it */
    bool stays_put;   /* where resolve says that bytes lie, no others ever will, while it is open */
    bool handles_fua; /* takes BLK_FUA itself; else the waist flushes this device after the write */
    const struct opt_desc *open_options; /* ends with NULL name; NULL: none but children */
    const struct opt_desc *create_options;

    /* Pure. Score 0..100 and a reason (a static sentence); 0: not mine. */
    int (*probe)(const struct blk_probe *p, const char **reason);
    int (*co_create)(const struct blk_create *c, struct blk_error *e);
    int (*co_open)(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                   struct blk_error *e);
    /* Fills required and fully_allocated; without a source it is pure: no I/O. */
    int (*co_measure)(struct blk_measure *m, struct blk_error *e);
    /* When everything that co_opener_reference() asked for is open and attached, children's before
     * their parents', and again after co_blk_exchange_child(): where a map format looks up its
     * backing device. NULL: nothing. */
    int (*co_opened)(struct blk_device *dev, struct blk_error *e);
    /* Hears what the driver above does next (blk_step()): of test layers. NULL: nobody listens. */
    void (*step)(struct blk_device *dev, const char *name);
    /* All requests have ended. Writes back what is dirty; its error is reported, the device is gone
     * all the same. The waist closes the children. */
    int (*co_close)(struct blk_device *dev, struct blk_error *e);
    int (*co_reopen)(struct blk_device *dev, bool write, struct blk_error *e);
    /* Lists inner devices (*out: array to be freed by blk_inner_drop()), or opens one: fills @dev
     * as open() does, over @container as child. */
    int (*co_inner_list)(struct blk_device *dev, struct blk_inner **out, size_t *count,
                         struct blk_error *e);
    int (*co_inner_open)(struct blk_device *container, const char *name, struct blk_device *dev,
                         struct blk_error *e);
    /* The one called @name is no disk, but holds some, and is open: gives *out, a reference.
     * -ENOENT: it is none of that kind. */
    int (*co_inner_container)(struct blk_device *container, const char *name,
                              struct blk_device **out, struct blk_error *e);

    /* Of drivers of sets, about any device: is it a member of one? -ENODATA: it is not. The set is
     * opened over its members as children of the role "member". */
    int (*co_member_of)(struct blk_device *dev, struct blk_member *out, struct blk_error *e);
    /* Makes an inner device (@opts are parsed with inner_options; gives its *name, mem_free() it),
     * deletes one that nobody has open, or grows one (NULL: the last) into the space behind it,
     * having adopted what the device below has grown by (*bytes: its new size). Durable when they
     * return; a crash leaves what was before or what is after. */
    const struct opt_desc *inner_options;
    int (*co_inner_add)(struct blk_device *dev, const struct opts *opts, char **name,
                        struct blk_error *e);
    int (*co_inner_delete)(struct blk_device *dev, const char *name, struct blk_error *e);
    int (*co_inner_grow)(struct blk_device *dev, const char *name, uint64_t *bytes,
                         struct blk_error *e);

    int (*co_read)(struct blk_device *dev, uint64_t offset, const struct vec *to);
    int (*co_write)(struct blk_device *dev, uint64_t offset, const struct vec *from,
                    unsigned flags);
    int (*co_write_zeroes)(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags);
    int (*co_discard)(struct blk_device *dev, uint64_t offset, uint64_t bytes);
    int (*co_flush)(struct blk_device *dev);
    /* Any worker, never suspends, no locks: true and *out, or false (a MISS). @write: an overwrite
     * in place is meant. What it answers while the device is not writable stays true as long as
     * that is so: the waist remembers it (behind.c). A MISS may become an answer. */
    bool (*resolve)(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                    struct blk_place *out);
    int (*co_map)(struct blk_device *dev, uint64_t offset, uint64_t bytes, struct blk_extent *out);
    /* Takes [from->offset, +from->bytes) of a host file (from->file) as the new contents at
     * @offset, without the bytes coming up. -ENOTSUP: caller copies. */
    int (*co_copy)(struct blk_device *dev, uint64_t offset, const struct blk_place *from);
    int (*co_complete)(
        struct blk_device *dev,
        struct blk_error *e); /* of BLK_OPEN_FRESH: write back all, then become recognisable */
    int (*co_resize)(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e);
    int (*co_check)(struct blk_device *dev, struct blk_check *check,
                    struct blk_error *e); /* repairs what check asks for */
    int (*co_info)(struct blk_device *dev, struct blk_info *out, struct blk_error *e);
    /* Lets go of everything the image itself holds: all of it shows the backing device again.
     * Durable when it returns; a crash leaves each cluster as it was or let go of. */
    int (*co_make_empty)(struct blk_device *dev, struct blk_error *e);
    /* The image names another backing file (NULL: none) with its format (NULL: not told); durable
     * when it returns, the old name or the new one after a crash. The open device keeps the child
     * it has. -ENOSPC: there is no room for the name. */
    int (*co_change_backing)(struct blk_device *dev, const char *name, const char *format,
                             struct blk_error *e);
    /* With knows_backing: what the image says of who its backing image is (a UUID, a CID) is
     * written anew, of @backing; NULL: nobody in particular, so that any passes. The name stays.
     * Durable when it returns, the old words or the new ones after a crash. */
    int (*co_identify_backing)(struct blk_device *dev, struct blk_device *backing,
                               struct blk_error *e);
    /* Moves what the image holds to the front of its file and truncates that. Durable when it
     * returns; a crash leaves the same contents in a file of any length between. */
    int (*co_compact)(struct blk_device *dev, struct blk_error *e);
    /* Changes what can be changed of an existing image: @opts are parsed with amend_options, those
     * given count. Durable when it returns. */
    const struct opt_desc *amend_options; /* NULL: nothing can be */
    int (*co_amend)(struct blk_device *dev, const struct opts *opts, struct blk_error *e);
    /* Snapshots inside the image; all or none of the four. The device is gated but for the list,
     * and what they did is durable when they return. */
    int (*co_snapshot_list)(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                            struct blk_error *e);
    int (*co_snapshot_create)(struct blk_device *dev, const struct blk_snapshot *s,
                              struct blk_error *e); /* names may repeat */
    int (*co_snapshot_apply)(struct blk_device *dev, const char *id,
                             struct blk_error *e); /* the size may change: sets dev->size */
    int (*co_snapshot_delete)(struct blk_device *dev, const char *id, uint64_t *freed_bytes,
                              struct blk_error *e);
    /* Persistent dirty bitmaps; all or none of the three. An enabled one records every change of
     * what the device shows: writes, zeroes, discards, copies. The device is gated while one is
     * changed, and that is durable when it returns. */
    int (*co_bitmap_list)(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                          struct blk_error *e);
    int (*co_bitmap_change)(struct blk_device *dev, const struct blk_bitmap_change *c,
                            struct blk_error *e);
    /* Redundancy; all or none. A step of @s->kind, beside requests; one caller at a time for each
     * kind. */
    int (*co_sync)(struct blk_device *dev, struct blk_sync *s, struct blk_error *e);
    /* Writes down how far resync and recovery are; durable. */
    int (*co_sync_save)(struct blk_device *dev, struct blk_error *e);
    int (*co_member)(struct blk_device *dev, const struct blk_member_change *c,
                     struct blk_error *e);
    /* More members, or more of each; durable. */
    int (*co_members_grow)(struct blk_device *dev, const struct blk_members_grow *g,
                           struct blk_error *e);
    /* What the bitmap says from @offset on, at most @bytes of it. */
    int (*co_bitmap_read)(struct blk_device *dev, const char *name, uint64_t offset, uint64_t bytes,
                          struct blk_bitmap_extent *out, struct blk_error *e);
};

#define BLK_MAX_CHILDREN 32 /* inline; more are allocated */
struct blk_device {
    const struct blk_driver *driver;
    void *state;
    char *name; /* for messages: the file name or spec; owned */
    struct worker *home;
    struct host *host;
    uint64_t size;
    struct blk_limits limits;
    unsigned open_flags; /* enum blk_open_flags */
    bool writable;       /* now */
    bool marked_corrupt;

    struct blk_child *children; /* owned array; each holds a reference */
    size_t child_count;
    struct blk_device *backing; /* the child of that role; NULL: none */
    unsigned backs;             /* devices whose backing device this is */
    struct blk_behind *behind;  /* behind.c: where the bytes behind it lie, kept; owned */
    uint64_t behind_at;         /* the home's fixed_changes when it was made, or not; 0: never */
    unsigned refs;
    unsigned in_flight;
    unsigned holds; /* of blk_hold() elsewhere; atomic */
    struct co_queue idle;
    struct co_range
        serial; /* read-modify-write against all other writes; used when request_align > 1 */
    struct blk_listener *listeners;
    struct host_file *file; /* set by bottom devices only: what resolve answers */
    struct co *gate;        /* the coroutine that changes size or mode; all other requests wait */
    struct co_queue gate_waiters;
    struct blk_device *next_closing; /* co_blk_close()'s list: chains are closed by a loop */
};

/* --- life
 * ------------------------------------------------------------------------------------------------------------------
 */

/* Allocates a device and runs the driver's open() with parsed @tree. Home: the current worker. For
 * the resolver, and for tests that build stacks by hand (@opener may then be NULL, children given
 * by @children/@count: references are taken over, also on failure). */
must_use int co_blk_open(const struct blk_driver *driver, const char *name, const json_t *tree,
                         unsigned open_flags, struct blk_opener *opener,
                         const struct blk_child *children, size_t count, struct blk_device **out,
                         struct blk_error *e);
/* For drivers, in open(): adds @child (takes its reference; on failure it stays the caller's). */
must_use int blk_add_child(struct blk_device *dev, const char *role, struct blk_device *child);
/* For drivers, in open(): the child given by hand under @role, or else the one that the opener
 * makes of the option tree's key of that name. Gives *out (borrowed; may be NULL). */
must_use int co_blk_want_child(struct blk_device *dev, struct blk_opener *opener, const char *role,
                               unsigned open_flags, struct blk_device **out, struct blk_error *e);
/* For filters, in open(): what @dev passes on of @child's nature (what fresh and discarded space
 * reads as, what is fast, best sizes), not its alignment: the child sees to that itself. */
void blk_inherit_limits(struct blk_device *dev, const struct blk_device *child);
struct blk_device *blk_child(const struct blk_device *dev, const char *role); /* NULL: none */
/* The host files that @dev stands on, its own and its children's, at most @most of them, into
 * @files (borrowed); how many. Of stacks that are very deep or wide some are left out. */
unsigned blk_host_files(struct blk_device *dev, struct host_file **files, unsigned most);
struct blk_device *blk_ref(struct blk_device *dev);
/* Drops a reference; the last one waits for requests in flight, closes the device, then its
 * children. The first error of all. */
int co_blk_close(struct blk_device *dev, struct blk_error *e);
/* Waits until no request is in flight. */
void co_blk_drain(struct blk_device *dev);
/* Nothing is in flight in @dev from here on, and all that comes waits, whoever it is, until
 * blk_go_on(). At home; the two may be called by different coroutines. */
void co_blk_halt(struct blk_device *dev);
void blk_go_on(struct blk_device *dev);
/* The child under @role is another one now: @child (taken, also on failure; NULL: none any more).
 * Gives *old, the one that was there (NULL: none). The caller sees to it that both show the same
 * where it matters, and that nothing above is in flight. Runs the driver's co_opened() again;
 * -ENOTSUP: it has none. At home. */
must_use int co_blk_exchange_child(struct blk_device *dev, const char *role,
                                   struct blk_device *child, struct blk_device **old,
                                   struct blk_error *e);
/* The grace period: returns when every request that was in flight at the call, and could have
 * resolved through @dev, has ended (later ones may go on). Not from inside a request (it would wait
 * for itself). */
void co_blk_quiesce(struct blk_device *dev);

/* --- data path: 0 or a negative errno
 * ------------------------------------------------------------------------------------------ */
/* Ranges outside the device: -EINVAL (writes past the end: -ENOSPC). Read-only: -EPERM... -EROFS.
 */

must_use int co_blk_read(struct blk_device *dev, uint64_t offset, const struct vec *to);
must_use int co_blk_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                          unsigned flags);
/* For layers that ask for an alignment which @dev does not need: what was widened past its end
 * reads as zero there, and is not written unless @dev can grow. */
must_use int co_blk_read_inside(struct blk_device *dev, uint64_t offset, const struct vec *to);
must_use int co_blk_write_inside(struct blk_device *dev, uint64_t offset, const struct vec *from,
                                 unsigned flags);
must_use int co_blk_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                 unsigned flags);
must_use int co_blk_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes);
must_use int co_blk_flush(struct blk_device *dev);
/* Where [offset, +bytes), which lies inside, resolves to files that keep their data on disks, space
 * is taken there for what is going to be written; contents stay as they are. -ENOTSUP elsewhere.
 * For drivers, of a child, at home. */
must_use int co_blk_reserve(struct blk_device *dev, uint64_t offset, uint64_t bytes);
/* Follows resolve from layer to layer: true and a place in a host file, or false. Any worker, never
 * suspends. */
bool blk_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                 struct blk_place *out);
/* As blk_resolve(), only of bytes whose place is theirs for good, so that even a late
 * look at it shows no others: no layer on the way moves them, or nobody can write to the file. */
bool blk_resolve_steady(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out);
/* As co_blk_read() and co_blk_write() of no flags, but not at home: where the bytes have their
 * place for good, the worker that asks waits for the file itself. */
must_use int co_blk_read_here(struct blk_device *dev, uint64_t offset, const struct vec *to);
must_use int co_blk_write_here(struct blk_device *dev, uint64_t offset, const struct vec *from);
/* From now on requests may resolve through @dev on other workers: what is being changed, or let go
 * of, waits until each of them has ended its turn. So elsewhere what was resolved is good until the
 * caller suspends, or is held. At home; for good. */
void blk_open_lane(struct blk_device *dev);
/* What was resolved through @dev in this step stays good until blk_release() on the same worker: a
 * change of the device waits for that. False: one is under way. */
must_use bool blk_hold(struct blk_device *dev);
void co_blk_stay(struct blk_device *dev); /* as blk_hold(), when nobody changes it any more */
void blk_release(struct blk_device *dev);
/* One layer's answer for the extent at @offset, at most @bytes long; never empty. */
must_use int co_blk_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                        struct blk_extent *out);
/* What the guest sees there: through backing devices down to @base (not included; NULL: all),
 * zeroes of a file's holes included. *depth counts the layers above the one that answered (0: @dev
 * itself). QEMU's block status rules: docs/block.md. */
must_use int co_blk_map_chain(struct blk_device *dev, struct blk_device *base, uint64_t offset,
                              uint64_t bytes, struct blk_extent *out, unsigned *depth);
/* The layer behind @dev that determines the bytes at p->offset of p->child, the device behind it:
 * *p is where they are to be read, at most p->bytes of them. p->child NULL: they are zeroes. */
must_use int co_blk_find_behind(struct blk_device *dev, struct blk_place *p);
/* Copies where both sides allow it without the bytes coming up; -ENOTSUP: nothing was done, read
 * and write instead. */
must_use int co_blk_copy(struct blk_device *dst, uint64_t dst_offset, struct blk_device *src,
                         uint64_t src_offset, uint64_t bytes);
/* The same by a read and a write for each part. */
must_use int co_blk_copy_through_memory(struct blk_device *dst, uint64_t dst_offset,
                                        struct blk_device *src, uint64_t src_offset,
                                        uint64_t bytes);
/* The checked form of the driver's co_copy: @from is a place in a host file. For drivers whose own
 * co_copy puts the bytes into a child. -ENOTSUP: nothing was done. */
must_use int co_blk_copy_from(struct blk_device *dst, uint64_t offset,
                              const struct blk_place *from);

/* Convenience over flat buffers. */
/* Tells a test layer (blkdebug) that @dev is what a step goes to, under the name that QEMU has for
 * it: "l2_update". Costs a look where there is none. */
static inline void blk_step(struct blk_device *dev, const char *name)
{
    if (unlikely(dev->driver->step != NULL))
        dev->driver->step(dev, name);
}

static inline must_use int co_blk_read_buf(struct blk_device *dev, uint64_t offset, void *to,
                                           uint64_t bytes)
{
    struct vec v = VEC_BUF(to, bytes);
    return co_blk_read(dev, offset, &v);
}
static inline must_use int co_blk_write_buf(struct blk_device *dev, uint64_t offset,
                                            const void *from, uint64_t bytes, unsigned flags)
{
    struct vec v = VEC_BUF(from, bytes);
    return co_blk_write(dev, offset, &v, flags);
}

/* For drivers: what resolve answered of @dev while nobody could write to it is no longer so. At
 * home. */
void blk_forget_behind(struct blk_device *dev);

/* --- control
 * -------------------------------------------------------------------------------------------------------------------
 */

must_use int co_blk_reopen(struct blk_device *dev, bool write, struct blk_error *e);
must_use int co_blk_complete(struct blk_device *dev, struct blk_error *e);
must_use int co_blk_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e);
must_use int co_blk_check(struct blk_device *dev, struct blk_check *check,
                          struct blk_error *e); /* -ENOTSUP: the format has none */
must_use int co_blk_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e);
/* -ENOTSUP: the format cannot. */
must_use int co_blk_make_empty(struct blk_device *dev, struct blk_error *e);
must_use int co_blk_change_backing(struct blk_device *dev, const char *name, const char *format,
                                   struct blk_error *e);
/* 0 without doing anything where the format keeps no identities. */
must_use int co_blk_identify_backing(struct blk_device *dev, struct blk_device *backing,
                                     struct blk_error *e);
must_use int co_blk_compact(struct blk_device *dev, struct blk_error *e);
must_use int co_blk_amend(struct blk_device *dev, const struct opts *opts, struct blk_error *e);
/* @driver, not a device: the image is still to be made. -ENOTSUP: the format cannot say. */
must_use int co_blk_measure(const struct blk_driver *driver, struct blk_measure *m,
                            struct blk_error *e);
/* For drivers, in co_measure(): the bytes of @dev that hold data, counted in whole @unit (a power
 * of two) each; what reads as zero by its extents does not count. */
must_use int co_blk_data_bytes(struct blk_device *dev, uint64_t unit, uint64_t *bytes);
must_use int co_blk_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                               struct blk_error *e);
/* -ENOENT, without a word: no container is called so in there. */
must_use int co_blk_inner_container(struct blk_device *container, const char *name,
                                    struct blk_device **out, struct blk_error *e);
must_use int co_blk_inner_open(struct blk_device *container, const char *name,
                               struct blk_device **out, struct blk_error *e);
void blk_inner_drop(struct blk_inner *list, size_t count);
/* -ENOTSUP: the driver cannot. */
must_use int co_blk_inner_add(struct blk_device *dev, const struct opts *opts, char **name,
                              struct blk_error *e);
must_use int co_blk_inner_delete(struct blk_device *dev, const char *name, struct blk_error *e);
must_use int co_blk_inner_grow(struct blk_device *dev, const char *name, uint64_t *bytes,
                               struct blk_error *e);
/* Asks @driver whether @dev is a member of one of its sets; -ENODATA: no, or it has no sets. */
must_use int co_blk_member_of(const struct blk_driver *driver, struct blk_device *dev,
                              struct blk_member *out, struct blk_error *e);
/* For a driver's co_inner_open(): @dev shows that part of @child (inside it: asserted; borrowed, a
 * reference is kept), at the speed of @child. 0 or -ENOMEM. */
must_use int blk_show_slice(struct blk_device *dev, struct blk_device *child, uint64_t offset,
                            uint64_t bytes);

/* Snapshots: -ENOTSUP where the format keeps none. *out is to be freed by blk_snapshots_drop(). */
must_use int co_blk_snapshot_list(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                                  struct blk_error *e);
/* Of one instant: requests in flight end first, new ones wait. */
must_use int co_blk_snapshot_create(struct blk_device *dev, const struct blk_snapshot *s,
                                    struct blk_error *e);
must_use int co_blk_snapshot_apply(struct blk_device *dev, const char *id, struct blk_error *e);
/* *freed_bytes: of space that nothing uses any more. */
must_use int co_blk_snapshot_delete(struct blk_device *dev, const char *id, uint64_t *freed_bytes,
                                    struct blk_error *e);
void blk_snapshots_drop(struct blk_snapshot *list, size_t count);
/* The first with that id, or with that name; NULL: none. */
const struct blk_snapshot *blk_snapshot_by_id(const struct blk_snapshot *list, size_t count,
                                              const char *id);
const struct blk_snapshot *blk_snapshot_by_name(const struct blk_snapshot *list, size_t count,
                                                const char *name);

/* Persistent bitmaps: -ENOTSUP where the format keeps none. *out is to be freed by
 * blk_bitmaps_drop(). */
must_use int co_blk_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                                struct blk_error *e);
must_use int co_blk_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *c,
                                  struct blk_error *e);
/* A run from @offset on, never empty and at most @bytes long; neighbours may say the same. */
must_use int co_blk_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset,
                                uint64_t bytes, struct blk_bitmap_extent *out, struct blk_error *e);
void blk_bitmaps_drop(struct blk_bitmap *list, size_t count);

/* The device with redundancy that @dev is, or stands on; NULL: there is none. */
struct blk_device *blk_find_redundant(struct blk_device *dev);
must_use int co_blk_sync(struct blk_device *dev, struct blk_sync *s, struct blk_error *e);
must_use int co_blk_sync_save(struct blk_device *dev, struct blk_error *e);
must_use int co_blk_member(struct blk_device *dev, const struct blk_member_change *c,
                           struct blk_error *e);
must_use int co_blk_members_grow(struct blk_device *dev, const struct blk_members_grow *g,
                                 struct blk_error *e);
/* For drivers: the child at @index of dev->children goes; gives its reference. */
struct blk_device *blk_remove_child(struct blk_device *dev, size_t index);
void blk_listen(struct blk_device *dev, struct blk_listener *l);
void blk_unlisten(struct blk_device *dev, struct blk_listener *l);
void blk_tell(struct blk_device *dev, enum blk_event ev); /* for drivers */
/* For drivers: nothing may be written any more; the device is read-only from now on and listeners
 * hear of it. */
void blk_mark_corrupt(struct blk_device *dev);

/* What a person can do next, into @e (NULL, or said already: nothing): @advice with @name, as a
 * shell takes it, in the place of each FILE; what follows from this, that @driver could not open
 * the file that is called @name; or an operation on @dev, which is open, failed. */
void blk_next(struct blk_error *e, const char *advice, const char *name);
void blk_next_after_open(const struct blk_driver *driver, const char *name, struct blk_error *e);
void blk_next_after_io(struct blk_device *dev, struct blk_error *e);
/* Advice of more than one place. */
#define BLK_NEXT_SALVAGE \
    "`lamina convert --salvage FILE NEW` makes a new image of what can still be read"

/* --- the drivers there are
 * ------------------------------------------------------------------------------------------------------
 */

/* tools/drivers.c lists every driver of every floor; the program hands the list to the resolver.
 * Ends with NULL. */
extern const struct blk_driver *const blk_drivers[];
const struct blk_driver *blk_find_driver(const struct blk_driver *const *list, const char *name);

/* The file that @dev stands on (through layers of role "file") has the name @path from now on: it
 * is reopened by that, and called so. At home. -ENOMEM: it keeps the old one. */
must_use int blk_file_renamed(struct blk_device *dev, const char *path);

/* block/'s own */
extern const struct blk_driver file_driver, mem_driver, null_driver, slice_driver, concat_driver,
    fault_driver, compress_driver, blkdebug_driver, blkverify_driver, log_driver, throttle_driver,
    zeroes_driver;

#endif

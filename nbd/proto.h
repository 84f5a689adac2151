/* SPDX-License-Identifier: BSD-3-Clause */
/* proto.h - the NBD protocol as it travels: numbers and structures, nothing else.
 *
 * All integers are big endian. The public protocol document (doc/proto.md of the reference
 * implementation) is the source; the names are its names. */
#ifndef NBD_PROTO_H
#define NBD_PROTO_H

#include "block/base.h"
#include "block/endian.h"

/* --- handshake --- */

#define NBD_MAGIC           0x4e42444d41474943ULL /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC    0x49484156454f5054ULL /* "IHAVEOPT" */
#define NBD_OPT_REPLY_MAGIC 0x0003e889045565a9ULL

enum nbd_handshake_flags { NBD_FLAG_FIXED_NEWSTYLE = 1, NBD_FLAG_NO_ZEROES = 2 };

/* Server's first message; the client answers with be32 flags. */
struct nbd_hello {
    be64 magic, option_magic;
    be16 flags;
};
static_assert(sizeof(struct nbd_hello) == 18, "hello");

struct nbd_option_head {
    be64 magic; /* NBD_OPTION_MAGIC */
    be32 code;  /* enum nbd_option_code */
    be32 bytes; /* of payload that follows */
};
static_assert(sizeof(struct nbd_option_head) == 16, "option");

struct nbd_option_reply {
    be64 magic; /* NBD_OPT_REPLY_MAGIC */
    be32 code;  /* the option answered */
    be32 type;  /* enum nbd_reply_type */
    be32 bytes;
};
static_assert(sizeof(struct nbd_option_reply) == 20, "option reply");

enum nbd_option_code {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

enum nbd_reply_type {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERROR(n)     (0x80000000u + (n))
#define NBD_REP_ERR_UNSUP    NBD_REP_ERROR(1)
#define NBD_REP_ERR_POLICY   NBD_REP_ERROR(2)
#define NBD_REP_ERR_INVALID  NBD_REP_ERROR(3)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERROR(5)
#define NBD_REP_ERR_UNKNOWN  NBD_REP_ERROR(6)
#define NBD_REP_ERR_TOO_BIG  NBD_REP_ERROR(9)
#define NBD_REP_ERR_EXT_REQD NBD_REP_ERROR(10)

enum nbd_info_type {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

struct nbd_info_export {
    be16 type;
    be64 size;
    be16 flags; /* enum nbd_export_flags */
};
struct nbd_info_block_size {
    be16 type;
    be32 minimum, preferred, maximum;
};
static_assert(sizeof(struct nbd_info_export) == 12, "info export");
static_assert(sizeof(struct nbd_info_block_size) == 14, "info block size");

/* What EXPORT_NAME is answered with; the zeroes only unless NO_ZEROES was agreed. */
struct nbd_export_name_reply {
    be64 size;
    be16 flags;
    uint8_t zeroes[124];
};
static_assert(sizeof(struct nbd_export_name_reply) == 134, "export name reply");

enum nbd_export_flags {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
    NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

/* --- transmission --- */

#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

struct nbd_request_wire {
    be32 magic;
    be16 flags; /* enum nbd_command_flags */
    be16 type;  /* enum nbd_command */
    be64 cookie;
    be64 offset;
    be32 length;
};
static_assert(sizeof(struct nbd_request_wire) == 28, "request");

/* Where extended headers were agreed, the only two headers there are: this, and struct
 * nbd_chunk_ext. */
#define NBD_EXT_REQUEST_MAGIC 0x21e41c71u
#define NBD_EXT_REPLY_MAGIC   0x6e8a278cu

struct nbd_request_ext {
    be32 magic;
    be16 flags;
    be16 type;
    be64 cookie;
    be64 offset;
    be64 length; /* of the payload if NBD_CMD_FLAG_PAYLOAD_LEN is set, else of the effect */
};
static_assert(sizeof(struct nbd_request_ext) == 32, "extended request");

/* The payload of BLOCK_STATUS: of which contexts; be32 ids follow. */
struct nbd_status_filter {
    be64 length;
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
    NBD_COMMANDS,
};

enum nbd_command_flags {
    NBD_CMD_FLAG_FUA = 1,
    NBD_CMD_FLAG_NO_HOLE = 2,
    NBD_CMD_FLAG_DF = 4,
    NBD_CMD_FLAG_REQ_ONE = 8,
    NBD_CMD_FLAG_FAST_ZERO = 16,
    NBD_CMD_FLAG_PAYLOAD_LEN = 32,
};

struct nbd_simple_reply {
    be32 magic, error;
    be64 cookie;
};
static_assert(sizeof(struct nbd_simple_reply) == 16, "simple reply");

struct nbd_chunk {
    be32 magic; /* NBD_STRUCTURED_MAGIC */
    be16 flags; /* NBD_CHUNK_DONE */
    be16 type;  /* enum nbd_chunk_type */
    be64 cookie;
    be32 bytes; /* that follow */
};
static_assert(sizeof(struct nbd_chunk) == 20, "chunk");

#define NBD_CHUNK_DONE 1
enum nbd_chunk_type {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_DATA = 1,
    NBD_CHUNK_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_BLOCK_STATUS_EXT = 6,
    NBD_CHUNK_ERROR = 0x8001,
};

struct nbd_chunk_ext {
    be32 magic; /* NBD_EXT_REPLY_MAGIC */
    be16 flags;
    be16 type;
    be64 cookie;
    be64 offset; /* the request's */
    be64 bytes;  /* that follow */
};
static_assert(sizeof(struct nbd_chunk_ext) == 32, "extended chunk");

/* What follows a chunk's header. */
struct nbd_chunk_data { /* the data follows */
    be64 offset;
};
struct nbd_chunk_hole {
    be64 offset;
    be32 length;
};
struct nbd_chunk_status { /* struct nbd_extent follow */
    be32 context;
};
struct nbd_chunk_status_ext { /* struct nbd_extent_ext follow */
    be32 context, count;
};
struct nbd_chunk_error { /* the text follows */
    be32 error;
    be16 text_bytes;
};
static_assert(sizeof(struct nbd_chunk_data) == 8, "data chunk");
static_assert(sizeof(struct nbd_chunk_hole) == 12, "hole chunk");
static_assert(sizeof(struct nbd_chunk_status) == 4, "status chunk");
static_assert(sizeof(struct nbd_chunk_status_ext) == 8, "extended status chunk");
static_assert(sizeof(struct nbd_chunk_error) == 6, "error chunk");

struct nbd_extent {
    be32 length, flags;
};
struct nbd_extent_ext {
    be64 length, flags;
};
static_assert(sizeof(struct nbd_extent_ext) == 16, "extended extent");
enum nbd_extent_flags { NBD_EXTENT_HOLE = 1, NBD_EXTENT_ZERO = 2 };

enum nbd_errno {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* --- our limits on what a peer may ask --- */

#define NBD_MAX_NAME     4096u           /* bytes of an export's name */
#define NBD_MAX_PAYLOAD  (4096u + 4096u) /* of an option: a name and as much again */
#define NBD_MAX_SKIP     (1u << 20)      /* of an option too long: read and thrown away */
#define NBD_MAX_OPTIONS  64u             /* in one handshake */
#define NBD_MAX_REQUEST  (32u << 20)     /* bytes of data in one read or write */
#define NBD_SHORT        (256u << 10)    /* bytes of a request that some room is kept for */
#define NBD_WIDE_CLIENTS 32u             /* whose sockets are given more room */

#endif

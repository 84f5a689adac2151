/* SPDX-License-Identifier: BSD-3-Clause */
/* endian.h - integers as they lie on disk. Each type is a struct of bytes, so using one without a
 * conversion does not compile, and structures made of them have no padding. */
#ifndef BLOCK_ENDIAN_H
#define BLOCK_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_TYPE(name, bits, order)              \
    typedef struct {                                \
        uint8_t b[(bits) / 8];                      \
    } name;                                         \
    static inline uint##bits##_t name##_get(name v) \
    {                                               \
        uint##bits##_t raw;                         \
        memcpy(&raw, v.b, sizeof(raw));             \
        return order##bits##toh(raw);               \
    }                                               \
    static inline name name##_of(uint##bits##_t v)  \
    {                                               \
        name out;                                   \
        v = hto##order##bits(v);                    \
        memcpy(out.b, &v, sizeof(v));               \
        return out;                                 \
    }

ENDIAN_TYPE(be16, 16, be)
ENDIAN_TYPE(be32, 32, be)
ENDIAN_TYPE(be64, 64, be)
ENDIAN_TYPE(le16, 16, le)
ENDIAN_TYPE(le32, 32, le)
ENDIAN_TYPE(le64, 64, le)

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* uuid.h - UUIDs of images: told, made, written. In memory they are in RFC 4122 byte order. */
#ifndef BLOCK_UUID_H
#define BLOCK_UUID_H

#include "block/err.h"
#include "block/host.h"

#define UUID_TEXT 37 /* bytes of uuid_text()'s answer */

/* "aabbccdd-eeff-0011-2233-445566778899", braces around it or not. */
must_use bool uuid_parse(const char *text, uint8_t uuid[16]);
void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT]);
/* @text (an option; NULL or empty: none is told), else a random one. */
must_use int uuid_choose(struct host *host, const char *text, uint8_t uuid[16],
                         struct blk_error *e);
/* Another one that follows from @uuid, so that a told one makes all of an image reproducible. */
void uuid_derive(const uint8_t uuid[16], uint8_t which, uint8_t out[16]);
bool uuid_is_nil(const uint8_t uuid[16]);
/* To and from Microsoft's order (VirtualBox, VHDX): three fields little endian. */
void uuid_swap(const uint8_t from[16], uint8_t to[16]);

#endif

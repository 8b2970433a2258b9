/* SHA-256, by which files are named (FIPS 180-4). */
#ifndef TRILOBIT_DIGEST_H
#define TRILOBIT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { DIGEST_TEXT = 65 }; /* characters of a hash, and the end of the string */

typedef struct {
  uint32_t state[8];
  uint64_t size;
  uint8_t block[64];
} Digest;

void digest_begin(Digest* digest);
void digest_add(Digest* digest, const void* bytes, size_t size);
/* Write the hash in hexadecimal. */
void digest_end(Digest* digest, char text[DIGEST_TEXT]);

#endif

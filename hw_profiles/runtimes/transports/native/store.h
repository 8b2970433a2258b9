/* Files on the board by the SHA-256 of their content, in a folder with a size limit. */
#ifndef TRILOBIT_STORE_H
#define TRILOBIT_STORE_H

#include <stdbool.h>
#include <stddef.h>

enum { PATH_SIZE = 4096 };

typedef struct {
  char folder[PATH_SIZE - 256];
  unsigned long long limit_bytes; /* of all files together */
} Store;

typedef struct {
  char* bytes;
  size_t size;
} Content;

/* Give up to `most` bytes of what is to be kept; 0 where there are no more. */
typedef size_t (*Source)(void* of, char* bytes, size_t most);

typedef enum { KEPT, NO_ROOM, NOT_THAT_FILE, ENDED } Kept;

/* Make the folder; false where that cannot be, with errno. */
bool store_open(Store* store, const char* folder, unsigned long long limit_bytes);
/* Write where a file is kept; false where that is no hash. */
bool store_path(const Store* store, const char* sha256, char path[PATH_SIZE]);
/* Return whether a file is there, which will be the last to go from now on. */
bool store_has(const Store* store, const char* sha256);
/* Read a file that is still what it was; its bytes are NULL where there is none. */
Content store_content(const Store* store, const char* sha256);
/* Keep a file; all of it is read whatever becomes of it. `errno` says why there is no room. */
Kept store_receive(const Store* store, const char* sha256, unsigned long long size, Source source, void* of);

#endif

/* Shared libraries, loaded by hand: a static program has no dynamic loader, and Android's takes no library that
 * was linked for glibc. A library has no needs but a few functions of C, which are this program's own.
 */
#ifndef TRILOBIT_LIBRARY_H
#define TRILOBIT_LIBRARY_H

#include <stddef.h>

enum { PROBLEM_SIZE = 256 };

typedef struct {
  char* base;
  const void* symbols; /* of its dynamic symbol table */
  size_t count;
  const char* names;
} Library;

/* Load a file; each call gives a copy of its own. Returns why it cannot be, in `problem`, or NULL. */
const char* library_load(const char* path, Library* library, char problem[PROBLEM_SIZE]);
/* Return the address of what it defines under a name; NULL where there is no such thing. */
void* library_find(const Library* library, const char* name);

#endif

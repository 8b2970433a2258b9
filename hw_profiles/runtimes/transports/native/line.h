/* Lines and bytes, from a client and to it. */
#ifndef TRILOBIT_LINE_H
#define TRILOBIT_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "text.h"

typedef struct {
  int descriptor;
  double idle_s; /* without a word: a client that was cut off does not say good-bye */
  char* data;
  size_t start, end, capacity;
} Input;

/* Return the next line, which stays until the next call; NULL where there is no more. */
char* input_line(Input* input);
/* Give up to `most` bytes; 0 where there are no more. */
size_t input_some(void* input, char* bytes, size_t most);

/* Write a line, and free it; ends the process where nobody reads. */
void say(int descriptor, Text* line);
void say_error(int descriptor, const char* kind, const char* message);

#endif

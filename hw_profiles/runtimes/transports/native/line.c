#include "line.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const size_t LONGEST = 64u << 20, CHUNK = 1u << 18;

static bool more(Input* input) {
  struct pollfd waited = {input->descriptor, POLLIN, 0};
  if (input->start) {
    memmove(input->data, input->data + input->start, input->end - input->start);
    input->end -= input->start;
    input->start = 0;
  }
  if (input->capacity < input->end + CHUNK + 1) {
    input->capacity = 2 * input->capacity + 2 * CHUNK;
    input->data = realloc(input->data, input->capacity);
    if (!input->data) return false;
  }
  if (poll(&waited, 1, (int)(1000 * input->idle_s)) <= 0) return false;
  ssize_t some = read(input->descriptor, input->data + input->end, CHUNK);
  if (some <= 0) return false;
  input->end += (size_t)some;
  return true;
}

char* input_line(Input* input) {
  for (size_t looked = 0;;) {
    char* start = input->data + input->start;
    size_t held = input->end - input->start;
    char* end = held > looked ? memchr(start + looked, '\n', held - looked) : NULL;
    if (end) {
      *end = 0;
      input->start += (size_t)(end - start) + 1;
      return start;
    }
    looked = held;
    if (held > LONGEST || !more(input)) return NULL;
  }
}

size_t input_some(void* of, char* bytes, size_t most) {
  Input* input = of;
  if (input->start == input->end && !more(input)) return 0;
  size_t held = input->end - input->start, size = held < most ? held : most;
  memcpy(bytes, input->data + input->start, size);
  input->start += size;
  return size;
}

void say(int descriptor, Text* line) {
  put(line, "\n");
  for (size_t done = 0; done < line->size;) {
    ssize_t some = write(descriptor, line->data + done, line->size - done);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) exit(1);
    done += (size_t)some;
  }
  free(line->data);
  *line = (Text){NULL, 0, 0};
}

void say_error(int descriptor, const char* kind, const char* message) {
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"error\",\"kind\":\"%s\",\"message\":", kind);
  put_string(&line, message);
  put(&line, "}");
  say(descriptor, &line);
}

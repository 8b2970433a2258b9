/* JSON, as lines of it are read and written, and what they carry in base64. */
#ifndef TRILOBIT_TEXT_H
#define TRILOBIT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_LIST, JSON_OBJECT } JsonKind;

typedef struct Json {
  JsonKind kind;
  double number; /* of a bool 0 or 1 */
  const char* text;
  const char* key;    /* where it stands in an object */
  struct Json* first; /* of a list or an object */
  struct Json* next;  /* beside it */
} Json;

/* Read a document in place: strings stay in `text`, which is changed. NULL where it is no JSON. */
Json* json_parse(char* text);
/* Free what `json_parse` gave; NULL is fine. */
void json_free(Json* json);
/* Return what stands under a key; NULL where nothing does, or a null. */
const Json* json_get(const Json* json, const char* key);
/* Return a string, or `otherwise`. */
const char* json_text(const Json* json, const char* key, const char* otherwise);
/* Return a number or a truth, or `otherwise`. */
double json_number(const Json* json, const char* key, double otherwise);
/* Return how many elements a list has. */
size_t json_count(const Json* json);

/* A line that grows. */
typedef struct {
  char* data;
  size_t size, capacity;
} Text;

void put(Text* text, const char* format, ...) __attribute__((format(printf, 2, 3)));
/* Add a string with its quotes. */
void put_string(Text* text, const char* string);
/* Add a document as it was read. */
void put_json(Text* text, const Json* json);
/* Add bytes, quoted. */
void put_base64(Text* text, const void* bytes, size_t size);

/* malloc that ends the process where there is no memory. */
void* get_memory(size_t size);
/* The same on a cache line's boundary, zeroed. */
void* get_aligned(size_t size);

#endif

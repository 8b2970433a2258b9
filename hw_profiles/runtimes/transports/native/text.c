#include "text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64, CACHE_LINE = 64 };

void* get_memory(size_t size) {
  void* memory = calloc(size ? size : 1, 1);
  if (!memory) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return memory;
}

void* get_aligned(size_t size) {
  void* memory = NULL;
  if (posix_memalign(&memory, CACHE_LINE, size ? size : 1)) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return memset(memory, 0, size ? size : 1);
}

/* --- reading --- */

static Json* parse_value(char** at, int depth);

static void skip_space(char** at) {
  while (**at == ' ' || **at == '\t' || **at == '\r' || **at == '\n') ++*at;
}

static bool hex4(const char* at, unsigned* code) {
  *code = 0;
  for (int i = 0; i < 4; ++i) {
    if (!isxdigit((unsigned char)at[i])) return false;
    unsigned digit = isdigit((unsigned char)at[i]) ? at[i] - '0' : (at[i] | 32) - 'a' + 10;
    *code = *code * 16 + digit;
  }
  return true;
}

static char* put_utf8(char* to, unsigned code) {
  if (code < 0x80) {
    *to++ = (char)code;
  } else if (code < 0x800) {
    *to++ = (char)(0xC0 | code >> 6);
    *to++ = (char)(0x80 | (code & 63));
  } else if (code < 0x10000) {
    *to++ = (char)(0xE0 | code >> 12);
    *to++ = (char)(0x80 | (code >> 6 & 63));
    *to++ = (char)(0x80 | (code & 63));
  } else {
    *to++ = (char)(0xF0 | code >> 18);
    *to++ = (char)(0x80 | (code >> 12 & 63));
    *to++ = (char)(0x80 | (code >> 6 & 63));
    *to++ = (char)(0x80 | (code & 63));
  }
  return to;
}

/* Read one escape after its backslash; it is never longer than what stands for it. */
static bool parse_escape(char** at, char** to) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  const char* known = strchr(names, **at);
  if (**at && known) {
    *(*to)++ = values[known - names];
    ++*at;
    return true;
  }
  unsigned code, low;
  if (**at != 'u' || !hex4(*at + 1, &code)) return false;
  *at += 5;
  if (code >= 0xD800 && code < 0xDC00 && (*at)[0] == '\\' && (*at)[1] == 'u' && hex4(*at + 2, &low)) {
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    *at += 6;
  }
  *to = put_utf8(*to, code);
  return true;
}

static const char* parse_string(char** at) {
  if (**at != '"') return NULL;
  char *start = ++*at, *to = start;
  while (**at != '"') {
    if ((unsigned char)**at < 0x20) return NULL; /* the end, too */
    if (**at != '\\') {
      *to++ = *(*at)++;
    } else {
      ++*at;
      if (!parse_escape(at, &to)) return NULL;
    }
  }
  ++*at;
  *to = 0;
  return start;
}

static bool parse_members(Json* json, char** at, int depth, char end) {
  Json** last = &json->first;
  skip_space(at);
  if (**at == end) {
    ++*at;
    return true;
  }
  for (;;) {
    const char* key = NULL;
    skip_space(at);
    if (json->kind == JSON_OBJECT) {
      if (!(key = parse_string(at))) return false;
      skip_space(at);
      if (*(*at)++ != ':') return false;
    }
    Json* member = parse_value(at, depth + 1);
    if (!member) return false;
    member->key = key;
    *last = member;
    last = &member->next;
    skip_space(at);
    char met = *(*at)++;
    if (met == end) return true;
    if (met != ',') return false;
  }
}

static bool parse_word(Json* json, char** at) {
  static const struct {
    const char* word;
    JsonKind kind;
    double number;
  } words[] = {{"null", JSON_NULL, 0}, {"true", JSON_BOOL, 1}, {"false", JSON_BOOL, 0}};
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); ++i) {
    size_t length = strlen(words[i].word);
    if (!strncmp(*at, words[i].word, length)) {
      json->kind = words[i].kind;
      json->number = words[i].number;
      *at += length;
      return true;
    }
  }
  char* end;
  json->kind = JSON_NUMBER;
  json->number = strtod(*at, &end);
  if (end == *at || !strchr("-0123456789", **at)) return false;
  *at = end;
  return true;
}

static Json* parse_value(char** at, int depth) {
  if (depth > DEEPEST) return NULL;
  Json* json = get_memory(sizeof(Json));
  bool good;
  skip_space(at);
  if (**at == '{' || **at == '[') {
    json->kind = **at == '{' ? JSON_OBJECT : JSON_LIST;
    char end = *(*at)++ == '{' ? '}' : ']';
    good = parse_members(json, at, depth, end);
  } else if (**at == '"') {
    json->kind = JSON_STRING;
    good = (json->text = parse_string(at)) != NULL;
  } else {
    good = parse_word(json, at);
  }
  if (good) return json;
  json_free(json);
  return NULL;
}

Json* json_parse(char* text) {
  Json* json = parse_value(&text, 0);
  if (!json) return NULL;
  skip_space(&text);
  if (!*text) return json;
  json_free(json);
  return NULL;
}

void json_free(Json* json) {
  while (json) {
    Json* next = json->next;
    json_free(json->first);
    free(json);
    json = next;
  }
}

const Json* json_get(const Json* json, const char* key) {
  if (!json || json->kind != JSON_OBJECT) return NULL;
  for (const Json* member = json->first; member; member = member->next)
    if (!strcmp(member->key, key)) return member->kind == JSON_NULL ? NULL : member;
  return NULL;
}

const char* json_text(const Json* json, const char* key, const char* otherwise) {
  const Json* found = json_get(json, key);
  return found && found->kind == JSON_STRING ? found->text : otherwise;
}

double json_number(const Json* json, const char* key, double otherwise) {
  const Json* found = json_get(json, key);
  return found && (found->kind == JSON_NUMBER || found->kind == JSON_BOOL) ? found->number : otherwise;
}

size_t json_count(const Json* json) {
  size_t count = 0;
  for (const Json* member = json ? json->first : NULL; member; member = member->next) ++count;
  return count;
}

/* --- writing --- */

static void reserve(Text* text, size_t more) {
  if (text->size + more < text->capacity) return;
  text->capacity = 2 * (text->size + more) + 256;
  text->data = realloc(text->data, text->capacity);
  if (!text->data) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
}

void put(Text* text, const char* format, ...) {
  va_list first, second;
  va_start(first, format);
  va_copy(second, first);
  size_t size = (size_t)vsnprintf(NULL, 0, format, first);
  reserve(text, size + 1);
  vsnprintf(text->data + text->size, size + 1, format, second);
  text->size += size;
  va_end(second);
  va_end(first);
}

void put_string(Text* text, const char* string) {
  reserve(text, 6 * strlen(string) + 3);
  char* to = text->data + text->size;
  *to++ = '"';
  for (const unsigned char* at = (const unsigned char*)string; *at; ++at) {
    if (*at == '"' || *at == '\\') *to++ = '\\';
    if (*at < 0x20)
      to += sprintf(to, "\\u%04x", *at);
    else
      *to++ = (char)*at;
  }
  *to++ = '"';
  text->size = (size_t)(to - text->data);
}

void put_json(Text* text, const Json* json) {
  static const char* const ends[] = {"[]", "{}"};
  switch (json ? json->kind : JSON_NULL) {
    case JSON_NULL: put(text, "null"); return;
    case JSON_BOOL: put(text, json->number ? "true" : "false"); return;
    case JSON_NUMBER: put(text, "%.15g", json->number); return;
    case JSON_STRING: put_string(text, json->text); return;
    default: break;
  }
  const char* end = ends[json->kind == JSON_OBJECT];
  put(text, "%c", end[0]);
  for (const Json* member = json->first; member; member = member->next) {
    if (member->key) {
      put_string(text, member->key);
      put(text, ":");
    }
    put_json(text, member);
    if (member->next) put(text, ",");
  }
  put(text, "%c", end[1]);
}

void put_base64(Text* text, const void* bytes, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const uint8_t* from = bytes;
  reserve(text, 4 * (size / 3 + 1) + 3);
  char* to = text->data + text->size;
  *to++ = '"';
  for (size_t i = 0; i < size; i += 3) {
    size_t left = size - i;
    uint32_t three = (uint32_t)from[i] << 16 | (left > 1 ? from[i + 1] << 8 : 0) | (left > 2 ? from[i + 2] : 0);
    *to++ = digits[three >> 18];
    *to++ = digits[three >> 12 & 63];
    *to++ = left > 1 ? digits[three >> 6 & 63] : '=';
    *to++ = left > 2 ? digits[three & 63] : '=';
  }
  *to++ = '"';
  text->size = (size_t)(to - text->data);
}

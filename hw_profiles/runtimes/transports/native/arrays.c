#include "arrays.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50, LOCAL_SIZE = 30, ZIP64 = 1 };

static const struct {
  const char *name, *npy;
  size_t size;
} types[] = {
    {"float32", "<f4", 4}, {"float64", "<f8", 8}, {"uint8", "|u1", 1}, {"int8", "|i1", 1},
    {"int16", "<i2", 2},   {"int32", "<i4", 4},   {"int64", "<i8", 8},
};

static size_t type_of(const char* dtype) {
  size_t i = 0;
  while (i < sizeof(types) / sizeof(*types) && strcmp(types[i].name, dtype)) ++i;
  return i;
}

size_t item_size(const char* dtype) {
  size_t i = type_of(dtype);
  return i < sizeof(types) / sizeof(*types) ? types[i].size : 0;
}

bool tensor_of(const Json* json, Tensor* tensor) {
  const Json* shape = json_get(json, "shape");
  tensor->name = json_text(json, "name", "");
  tensor->dtype = json_text(json, "dtype", "");
  tensor->dimensions = (int)json_count(shape);
  if (!shape || shape->kind != JSON_LIST || tensor->dimensions > MOST_DIMENSIONS || !item_size(tensor->dtype))
    return false;
  int i = 0;
  for (const Json* size = shape->first; size; size = size->next) {
    if (size->kind != JSON_NULL && !(size->kind == JSON_NUMBER && size->number >= 0)) return false;
    tensor->shape[i++] = size->kind == JSON_NULL ? -1 : (long long)size->number;
  }
  return true;
}

size_t tensor_size(const Tensor* tensor) {
  size_t size = item_size(tensor->dtype);
  for (int i = 0; i < tensor->dimensions; ++i) size *= tensor->shape[i] < 0 ? 1 : (size_t)tensor->shape[i];
  return size;
}

static uint64_t number(const char* at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= (uint64_t)(uint8_t)at[i] << 8 * i;
  return value;
}

/* Return the size of a member, which stands in an extra field where it needs 64 bits. */
static uint64_t member_size(const char* header, size_t names, size_t extras) {
  uint64_t size = number(header + 22, 4);
  const char* at = header + LOCAL_SIZE + names;
  for (const char* end = at + extras; size == 0xFFFFFFFF && end - at >= 4; at += 4 + number(at + 2, 2))
    if (number(at, 2) == ZIP64 && end - at >= 12) return number(at + 4, 8);
  return size;
}

/* Return the numbers of an .npy file; NULL where they are not in C's order. */
static const void* npy_data(const char* file, size_t size, size_t* bytes) {
  if (size < 12 || memcmp(file, "\x93NUMPY", 6)) return NULL;
  int wide = file[6] > 1;
  size_t start = wide ? 12 + number(file + 8, 4) : 10 + number(file + 8, 2);
  if (start > size || memmem(file, start, "'fortran_order': True", 21)) return NULL;
  *bytes = size - start;
  return file + start;
}

const void* npz_find(const char* content, size_t size, const char* name, size_t* bytes) {
  size_t length = strlen(name), at = 0;
  while (at + LOCAL_SIZE <= size && number(content + at, 4) == LOCAL) {
    const char* header = content + at;
    size_t names = number(header + 26, 2), extras = number(header + 28, 2);
    if (at + LOCAL_SIZE + names + extras > size) return NULL;
    uint64_t held = member_size(header, names, extras);
    const char *member = header + LOCAL_SIZE, *data = member + names + extras;
    if (number(header + 8, 2) || held > size - (size_t)(data - content)) return NULL; /* compressed, or cut */
    if (names == length + 4 && !memcmp(member, name, length) && !memcmp(member + length, ".npy", 4))
      return npy_data(data, held, bytes);
    at = (size_t)(data - content) + held;
  }
  return NULL;
}

static uint32_t crc32_of(const uint8_t* bytes, size_t size) {
  uint32_t table[256], crc = 0xFFFFFFFF;
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xEDB88320 : 0);
  }
  for (size_t i = 0; i < size; ++i) crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
  return ~crc;
}

static char* put_number(char* to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) *to++ = (char)(value >> 8 * i);
  return to;
}

/* Write what both headers of a zip file say of a member. */
static char* put_facts(char* to, uint32_t crc, size_t size, size_t names) {
  to = put_number(to, 20, 2); /* version */
  to = put_number(to, 0, 8);  /* flags, stored, no date */
  to = put_number(to, crc, 4);
  to = put_number(to, size, 4);
  to = put_number(to, size, 4);
  to = put_number(to, names, 2);
  return put_number(to, 0, 2); /* no extra field */
}

static size_t npy_header(char header[512], const Tensor* tensor, long long count) {
  int used = sprintf(header + 10, "{'descr': '%s', 'fortran_order': False, 'shape': (", types[type_of(tensor->dtype)].npy);
  for (int i = 0; i < tensor->dimensions; ++i)
    used += sprintf(header + 10 + used, "%lld, ", tensor->shape[i] < 0 ? count : tensor->shape[i]);
  used += sprintf(header + 10 + used, "), }");
  while ((used + 11) % 64) header[10 + used++] = ' ';
  header[10 + used++] = '\n';
  memcpy(header, "\x93NUMPY\x01", 8);
  put_number(header + 8, (uint64_t)used, 2);
  return 10 + (size_t)used;
}

void put_npz(Text* text, const char* name, const Tensor* tensor, long long count, const void* data) {
  char header[512], file_name[64];
  size_t bytes = tensor_size(tensor) * (size_t)count, head = npy_header(header, tensor, count), size = head + bytes;
  size_t names = (size_t)snprintf(file_name, sizeof(file_name), "%s.npy", name);
  char *zip = get_memory(2 * (LOCAL_SIZE + names) + 64 + size), *to = zip;
  memcpy(zip + LOCAL_SIZE + names, header, head);
  memcpy(zip + LOCAL_SIZE + names + head, data, bytes);
  uint32_t crc = crc32_of((uint8_t*)zip + LOCAL_SIZE + names, size);
  to = put_facts(put_number(to, LOCAL, 4), crc, size, names);
  memcpy(to, file_name, names);
  to += names + size;
  size_t directory = (size_t)(to - zip);
  to = put_number(put_number(to, CENTRAL, 4), 20, 2);
  to = put_facts(to, crc, size, names);
  to = put_number(to, 0, 14); /* no comment, disk 0, no attributes, at the very beginning */
  memcpy(to, file_name, names);
  to += names;
  size_t listed = (size_t)(to - zip) - directory;
  to = put_number(put_number(to, END, 4), 0, 4);
  to = put_number(put_number(to, 1, 2), 1, 2);
  to = put_number(put_number(put_number(to, listed, 4), directory, 4), 0, 2);
  put_base64(text, zip, (size_t)(to - zip));
  free(zip);
}

/* Arrays as numpy's .npz files hold them: uncompressed zip files of .npy files. */
#ifndef TRILOBIT_ARRAYS_H
#define TRILOBIT_ARRAYS_H

#include <stdbool.h>
#include <stddef.h>

#include "text.h"

enum { MOST_DIMENSIONS = 8 };

/* What a tensor is like; a dimension of -1 may have any size. */
typedef struct {
  const char* name;
  const char* dtype; /* numpy's name of it, such as float32 */
  int dimensions;
  long long shape[MOST_DIMENSIONS];
} Tensor;

/* Read {"name", "shape", "dtype"}; false where it is none, or of a type that no library has. */
bool tensor_of(const Json* json, Tensor* tensor);
/* Return bytes of an element; 0 of an unknown type. */
size_t item_size(const char* dtype);
/* Return bytes, counting open dimensions as one. */
size_t tensor_size(const Tensor* tensor);

/* Find the bytes of the array of that name in an .npz file; NULL where it has none that can be read. */
const void* npz_find(const char* content, size_t size, const char* name, size_t* bytes);
/* Add an .npz file of one array in base64. */
void put_npz(Text* text, const char* name, const Tensor* tensor, long long count, const void* data);

#endif

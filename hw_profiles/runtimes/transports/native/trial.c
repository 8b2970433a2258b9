#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "arrays.h"
#include "library.h"
#include "line.h"
#include "machine.h"
#include "worker.h"

enum { MOST_ARRAYS = 32, MOST_WINDOWS = 64 };

typedef struct {
  TVMFFISafeCallType function;
  TVMFFIAny arguments[MOST_ARRAYS];
  DLTensor tensors[MOST_ARRAYS];
  int64_t shapes[MOST_ARRAYS][MOST_DIMENSIONS], strides[MOST_ARRAYS][MOST_DIMENSIONS];
  size_t sizes[MOST_ARRAYS];
  int count;
} Trial;

static void* scratch(int device, int id, uint64_t size, int code, int bits) {
  void* memory = NULL;
  (void)device, (void)id, (void)code, (void)bits;
  return posix_memalign(&memory, 64, size ? size : 1) ? NULL : memory;
}

static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static void provide(const Library* library, const char* name, void* function) {
  void** place = library_find(library, name); /* absent where no kernel needs it */
  if (place) *place = function;
}

static DLDataType dl_type(const char* dtype) {
  uint8_t code = *dtype == 'f' ? kDLFloat : *dtype == 'u' ? kDLUInt : kDLInt;
  return (DLDataType){code, (uint8_t)(8 * item_size(dtype)), 1};
}

/* Describe one array as TVM's functions want it, and copy its bytes; false where it is no array. */
static bool add_array(Trial* trial, const Json* json, const Content* data, size_t* used) {
  Tensor tensor;
  int at = trial->count;
  if (at == MOST_ARRAYS || !tensor_of(json, &tensor)) return false;
  size_t size = tensor_size(&tensor);
  if (size > data->size - *used) return false;
  int64_t stride = 1;
  for (int i = tensor.dimensions - 1; i >= 0; --i) {
    trial->shapes[at][i] = tensor.shape[i];
    trial->strides[at][i] = stride;
    stride *= tensor.shape[i];
  }
  void* bytes = memcpy(get_aligned(size), data->bytes + *used, size);
  trial->tensors[at] = (DLTensor){.data = bytes,
                                  .device = {kDLCPU, 0},
                                  .ndim = tensor.dimensions,
                                  .dtype = dl_type(tensor.dtype),
                                  .shape = trial->shapes[at],
                                  .strides = trial->strides[at]};
  trial->arguments[at].type_index = kTVMFFIDLTensorPtr;
  trial->arguments[at].v_ptr = &trial->tensors[at];
  trial->sizes[at] = size;
  *used += size;
  ++trial->count;
  return true;
}

static double time_trial(Trial* trial, long count) {
  TVMFFIAny result;
  double start = now_s();
  for (long i = 0; i < count; ++i) trial->function(NULL, trial->arguments, trial->count, &result);
  return now_s() - start;
}

static int by_size(const void* a, const void* b) {
  double first = *(const double*)a, second = *(const double*)b;
  return (first > second) - (first < second);
}

/* Return the least of a few medians: other programs only ever add to a time. */
static double best_median(Trial* trial, double window_s, int windows, int groups) {
  double once_s = time_trial(trial, 3) / 3, best_s = 0, seconds[MOST_WINDOWS];
  long count = once_s > 0 && window_s > once_s ? (long)(window_s / once_s + 0.5) : 1;
  for (int group = 0; group < groups; ++group) {
    for (int i = 0; i < windows; ++i) seconds[i] = time_trial(trial, count) / (double)count;
    qsort(seconds, (size_t)windows, sizeof(double), by_size);
    double median_s = (seconds[(windows - 1) / 2] + seconds[windows / 2]) / 2;
    if (!group || median_s < best_s) best_s = median_s;
  }
  return best_s;
}

static void load_trial(Worker* worker, const Json* request, Trial* trial) {
  char path[PATH_SIZE], problem[PROBLEM_SIZE], symbol[512];
  Library library;
  size_t used = 0;
  const char* sha256 = json_text(request, "library", "");
  free(content_or_fail(worker, sha256).bytes);
  Content data = content_or_fail(worker, json_text(request, "data", ""));
  store_path(&worker->store, sha256, path);
  const char* reason = library_load(path, &library, problem);
  if (reason) fail(worker, "artifact", reason);
  provide(&library, "__TVMBackendAllocWorkspace", (void*)scratch);
  provide(&library, "__TVMBackendFreeWorkspace", (void*)release);
  snprintf(symbol, sizeof(symbol), "__tvm_ffi_%s", json_text(request, "symbol", ""));
  trial->function = (TVMFFISafeCallType)library_find(&library, symbol);
  if (!trial->function) fail(worker, "artifact", "it has no such function");
  const Json* arrays = json_get(request, "arrays");
  for (const Json* array = arrays ? arrays->first : NULL; array; array = array->next)
    if (!add_array(trial, array, &data, &used)) fail(worker, "request", "the arrays are not what they are said to be");
  if (!trial->count) fail(worker, "request", "there are no arrays");
}

void answer_trial(Worker* worker, const Json* request) {
  Trial* trial = get_memory(sizeof(Trial));
  int windows = (int)json_number(request, "windows", 5), groups = (int)json_number(request, "groups", 3);
  if (windows < 1 || windows > MOST_WINDOWS || groups < 1) fail(worker, "request", "that many windows are not made");
  load_trial(worker, request, trial);
  TVMFFIAny result;
  hold_lock(worker, request);
  pin(best_core(worker->root));
  if (trial->function(NULL, trial->arguments, trial->count, &result)) fail(worker, "artifact", "the function failed");
  Text line = {NULL, 0, 0};
  int last = trial->count - 1;
  put(&line, "{\"say\":\"done\",\"output\":");
  put_base64(&line, trial->tensors[last].data, trial->sizes[last]);
  double seconds = best_median(trial, json_number(request, "window_s", 1e-4), windows, groups);
  put(&line, ",\"seconds\":%.12g}", seconds);
  say(worker->answers, &line);
}

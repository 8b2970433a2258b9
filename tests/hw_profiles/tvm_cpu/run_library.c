/* Runs a linked network without any of TVM's runtime: for processors that an emulator stands for.
 *
 *   run_library LIBRARY IMAGE PARAMETERS WORKSPACE_BYTES OUTPUT OUTPUT_BYTES
 *
 * IMAGE and PARAMETERS are raw files, OUTPUT is written as one. It provides what a library takes from TVM's
 * runtime: scratch memory, and a place to report an error. Link it with -rdynamic, so that both are found.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { ALIGNMENT = 64 };

static void fail(const char* what) {
  fprintf(stderr, "run_library: %s\n", what);
  exit(1);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int i = 0; i < count; ++i) fputs(parts[i], stderr);
  fputs("\n", stderr);
}

static void* scratch(int device, int id, uint64_t size, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  void* found = 0;
  if (posix_memalign(&found, ALIGNMENT, size ? size : 1)) fail("no memory");
  return found;
}

static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static char* zeros(long size) { return memset(scratch(0, 0, size, 0, 0), 0, size ? size : 1); }

static char* contents(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path);
  long size = ftell(file);
  char* found = zeros(size);
  rewind(file);
  if (fread(found, 1, size, file) != (size_t)size) fail(path);
  fclose(file);
  return found;
}

static void provide(void* library, const char* name, void* function) {
  void** place = dlsym(library, name); /* absent where no kernel needs it */
  if (place) *place = function;
}

int main(int count, char** words) {
  if (count != 7) fail("takes LIBRARY IMAGE PARAMETERS WORKSPACE_BYTES OUTPUT OUTPUT_BYTES");
  void* library = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
  if (!library) fail(dlerror());
  provide(library, "__TVMBackendAllocWorkspace", (void*)scratch);
  provide(library, "__TVMBackendFreeWorkspace", (void*)release);
  TVMFFISafeCallType run = (TVMFFISafeCallType)dlsym(library, "__tvm_ffi_main");
  if (!run) fail("no __tvm_ffi_main");

  long size = atol(words[6]);
  char* data[4] = {contents(words[2]), contents(words[3]), zeros(atol(words[4])), zeros(size)};
  DLTensor tensors[4] = {0}; /* the network knows their shapes itself */
  TVMFFIAny arguments[4] = {0}, result = {0};
  for (int i = 0; i < 4; ++i) {
    tensors[i].data = data[i];
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[i];
  }
  if (run(0, arguments, 4, &result)) fail("the network failed");

  FILE* file = fopen(words[5], "wb");
  if (!file || fwrite(data[3], 1, size, file) != (size_t)size || fclose(file)) fail(words[5]);
  return 0;
}

#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "digest.h"
#include "text.h"

enum { CHUNK = 1 << 18, HASH = 64 };

static bool is_hash(const char* name) {
  return name && strlen(name) >= HASH && strspn(name, "0123456789abcdef") == HASH;
}

bool store_open(Store* store, const char* folder, unsigned long long limit_bytes) {
  if (strlen(folder) >= sizeof(store->folder)) {
    errno = ENAMETOOLONG;
    return false;
  }
  strcpy(store->folder, folder);
  store->limit_bytes = limit_bytes;
  for (char* at = strchr(store->folder + 1, '/'); at; at = strchr(at + 1, '/')) {
    *at = 0;
    mkdir(store->folder, 0700);
    *at = '/';
  }
  struct stat about;
  if (mkdir(store->folder, 0700) && errno != EEXIST) return false;
  if (stat(store->folder, &about)) return false;
  errno = EPERM;
  return S_ISDIR(about.st_mode) && about.st_uid == getuid();
}

bool store_path(const Store* store, const char* sha256, char path[PATH_SIZE]) {
  if (!is_hash(sha256) || strlen(sha256) != HASH) return false;
  snprintf(path, PATH_SIZE, "%s/%s", store->folder, sha256);
  return true;
}

bool store_has(const Store* store, const char* sha256) {
  char path[PATH_SIZE];
  return store_path(store, sha256, path) && !utime(path, NULL);
}

static char* read_all(const char* path, size_t* size) {
  struct stat about;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  char* bytes = NULL;
  if (!fstat(file, &about)) {
    bytes = get_memory((size_t)about.st_size);
    for (*size = 0; *size < (size_t)about.st_size;) {
      ssize_t some = read(file, bytes + *size, (size_t)about.st_size - *size);
      if (some <= 0) break;
      *size += (size_t)some;
    }
  }
  close(file);
  return bytes;
}

Content store_content(const Store* store, const char* sha256) {
  Content content = {NULL, 0};
  char path[PATH_SIZE], found[DIGEST_TEXT];
  Digest digest;
  if (!store_path(store, sha256, path)) return content;
  content.bytes = read_all(path, &content.size);
  if (!content.bytes) return content;
  digest_begin(&digest);
  digest_add(&digest, content.bytes, content.size);
  digest_end(&digest, found);
  if (!strcmp(found, sha256)) return content;
  unlink(path); /* it was changed */
  free(content.bytes);
  return (Content){NULL, 0};
}

typedef struct {
  char path[PATH_SIZE];
  int64_t used_ns;
  unsigned long long size;
} Kept_file;

static int by_use(const void* a, const void* b) {
  int64_t first = ((const Kept_file*)a)->used_ns, second = ((const Kept_file*)b)->used_ns;
  return (first > second) - (first < second);
}

/* Remove what was not used for longest until there is room; false where there never is. */
static bool make_room(const Store* store, unsigned long long size) {
  if (size > store->limit_bytes) {
    errno = EFBIG;
    return false;
  }
  DIR* folder = opendir(store->folder);
  if (!folder) return false;
  Kept_file* files = NULL;
  size_t count = 0;
  unsigned long long total = size;
  for (struct dirent* entry; (entry = readdir(folder));) {
    struct stat about;
    char path[PATH_SIZE];
    if (!is_hash(entry->d_name)) continue;
    snprintf(path, sizeof(path), "%s/%s", store->folder, entry->d_name);
    if (lstat(path, &about) || !S_ISREG(about.st_mode)) continue;
    files = realloc(files, (count + 1) * sizeof(*files));
    if (!files) break;
    strcpy(files[count].path, path);
    files[count].used_ns = (int64_t)about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec;
    files[count++].size = (unsigned long long)about.st_size;
    total += (unsigned long long)about.st_size;
  }
  closedir(folder);
  if (files) qsort(files, count, sizeof(*files), by_use);
  for (size_t i = 0; i < count && total > store->limit_bytes; ++i) {
    unlink(files[i].path);
    total -= files[i].size;
  }
  free(files);
  return true;
}

static bool write_all(int file, const char* bytes, size_t size) {
  while (size) {
    ssize_t some = write(file, bytes, size);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) return false;
    bytes += some;
    size -= (size_t)some;
  }
  return true;
}

Kept store_receive(const Store* store, const char* sha256, unsigned long long size, Source source, void* of) {
  char path[PATH_SIZE], part[PATH_SIZE + 32], found[DIGEST_TEXT];
  bool named = store_path(store, sha256, path), room = named && make_room(store, size);
  int problem = errno, file = -1;
  if (named) snprintf(part, sizeof(part), "%s.%d.part", path, (int)getpid());
  if (room && (file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0) problem = errno;
  char* chunk = get_memory(CHUNK);
  Digest digest;
  digest_begin(&digest);
  while (size) {
    size_t some = source(of, chunk, size < CHUNK ? (size_t)size : CHUNK);
    if (!some) break;
    size -= some;
    digest_add(&digest, chunk, some);
    if (file >= 0 && !write_all(file, chunk, some)) {
      problem = errno;
      close(file);
      file = -1;
    }
  }
  free(chunk);
  bool written = file >= 0 && !close(file);
  digest_end(&digest, found);
  Kept kept = size ? ENDED : !named ? NOT_THAT_FILE : !written ? NO_ROOM : strcmp(found, sha256) ? NOT_THAT_FILE : KEPT;
  if (kept == KEPT && rename(part, path)) {
    problem = errno;
    kept = NO_ROOM;
  }
  if (named && kept != KEPT) unlink(part);
  errno = problem;
  return kept;
}

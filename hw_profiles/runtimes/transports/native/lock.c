#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"
#include "worker.h"

static const double WAIT_S = 0.1, TELL_S = 2.0;
enum { HOLDER_SIZE = 4096 };

static int open_lock(const char* path) {
  static const int flags = O_CLOEXEC | O_NOFOLLOW;
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | flags, 0666);
  if (file >= 0) fchmod(file, 0666); /* for whoever comes after us */
  /* a file of others in a folder of all may not be opened to be created (fs.protected_regular) */
  if (file < 0) file = open(path, O_RDWR | flags);
  return file >= 0 ? file : open(path, O_RDONLY | flags);
}

static void tell_holder(const Worker* worker, int file) {
  char holder[HOLDER_SIZE];
  ssize_t size = pread(file, holder, sizeof(holder) - 1, 0);
  holder[size > 0 ? size : 0] = 0;
  Json* who = json_parse(holder);
  Text fields = {NULL, 0, 0};
  put(&fields, ",\"waits_for\":");
  if (who)
    put_json(&fields, who);
  else
    put(&fields, "{}");
  tell(worker, fields.data);
  free(fields.data);
  json_free(who);
}

void hold_lock(const Worker* worker, const Json* request) {
  int file = open_lock(worker->lock);
  if (file < 0) fail(worker, "request", "the lock of the board cannot be opened");
  for (double told_s = 0; flock(file, LOCK_EX | LOCK_NB);) {
    struct timespec pause = {0, (long)(1e9 * WAIT_S)};
    if (now_s() - told_s >= TELL_S) {
      told_s = now_s();
      tell_holder(worker, file);
    }
    nanosleep(&pause, NULL);
  }
  const Json* who = json_get(request, "who");
  Text line = {NULL, 0, 0};
  char since[32];
  time_t now = time(NULL);
  strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S", localtime(&now));
  put(&line, "{\"since\":");
  put_string(&line, since);
  for (const Json* fact = who ? who->first : NULL; fact; fact = fact->next) {
    put(&line, ",");
    put_string(&line, fact->key);
    put(&line, ":");
    put_json(&line, fact);
  }
  put(&line, "}");
  if (ftruncate(file, 0) || pwrite(file, line.data, line.size, 0) < 0) { /* somebody else's file: only read */
  }
  free(line.data);
}

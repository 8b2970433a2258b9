/* The agent for boards without Python: takes requests and files on standard input and answers on standard output
 * (docs/concepts/boards.md has the protocol). When its input ends it ends, whatever is going on, and takes away
 * what it brought.
 *
 *   agent OPTIONS
 *
 * OPTIONS is JSON: `folder` and `cache_bytes` of what is kept; and where they are not the usual ones `lock`,
 * `idle_s`, `learning_s`, `root` (below which Linux describes itself), `brought` (whether the program itself goes
 * too).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"
#include "files.h"
#include "line.h"
#include "machine.h"
#include "worker.h"

enum { PROTOCOL = 1, OLD_S = 3600 };
static const char PROGRAM[] = "agent-"; /* how copies of this program are called */

static char brought[PATH_SIZE]; /* what goes when this process ends */

static void leave(void) {
  if (*brought) unlink(brought);
}

/* Answer a request in a process of its own; false where the client is gone. */
static bool pass_on(Worker* worker, const Json* request, int input) {
  int alive[2], status = 0;
  if (pipe(alive)) return false;
  pid_t parent = getpid(), child = fork();
  if (child < 0) {
    say_error(worker->answers, "lost", "no process can be started on the board");
    return true;
  }
  if (!child) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    *brought = 0;
    close(alive[0]);
    close(input);
    worker_answer(worker, request);
    _exit(0);
  }
  setpgid(child, child);
  close(alive[1]);
  struct pollfd watched[2] = {{input, POLLRDHUP, 0}, {alive[0], POLLIN, 0}};
  while (poll(watched, 2, -1) < 0 && errno == EINTR) continue;
  bool gone = watched[0].revents && !watched[1].revents;
  if (gone) kill(-child, SIGKILL);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  close(alive[0]);
  if (gone) return false;
  if (status) {
    char message[128];
    const char* name = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it gave up";
    snprintf(message, sizeof(message), "ended the process that ran it: %s", name);
    say_error(worker->answers, "lost", message);
  }
  return true;
}

/* Keep the files that follow a request; all of them are read whatever becomes of them. */
static bool answer_put(Worker* worker, const Json* request, Input* input) {
  const Json* files = json_get(request, "files");
  char message[PATH_SIZE + 128] = "";
  const char* kind = "disk";
  for (const Json* file = files ? files->first : NULL; file; file = file->next) {
    double size = json_number(file, "size", 0);
    const char* sha256 = json_text(file, "sha256", "");
    Kept kept = store_receive(&worker->store, sha256, (unsigned long long)size, input_some, input);
    if (kept == ENDED) return false;
    if (kept == NO_ROOM && !*message)
      snprintf(message, sizeof(message), "no room for %.1f MB in %s (%s)", size / 1e6, worker->store.folder,
               strerror(errno));
    if (kept == NOT_THAT_FILE && !*message) {
      kind = "request";
      snprintf(message, sizeof(message), "what came is not the file %.12s", sha256);
    }
  }
  Text line = {NULL, 0, 0};
  if (*message) {
    say_error(worker->answers, kind, message);
  } else {
    put(&line, "{\"say\":\"done\"}");
    say(worker->answers, &line);
  }
  return true;
}

static void answer_has(Worker* worker, const Json* request) {
  const Json* hashes = json_get(request, "sha256");
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"done\",\"has\":[");
  for (const Json* hash = hashes ? hashes->first : NULL; hash; hash = hash->next) {
    bool has = hash->kind == JSON_STRING && store_has(&worker->store, hash->text);
    put(&line, "%s%s", has ? "true" : "false", hash->next ? "," : "");
  }
  put(&line, "]}");
  say(worker->answers, &line);
}

/* Answer one request; false where there shall be no more. */
static bool answer(Worker* worker, const char* line, Input* input) {
  char* text = strdup(line); /* files that follow take the line's place */
  Json* request = text ? json_parse(text) : NULL;
  const char* name = json_text(request, "do", NULL);
  bool more = true;
  if (!name) {
    say_error(worker->answers, "request", "a line that is no request");
  } else if (!strcmp(name, "put")) {
    more = answer_put(worker, request, input);
  } else if (!strcmp(name, "has")) {
    answer_has(worker, request);
  } else if (!strcmp(name, "end")) {
    Text line = {NULL, 0, 0};
    put(&line, "{\"say\":\"done\"}");
    say(worker->answers, &line);
    more = false;
  } else {
    more = pass_on(worker, request, input->descriptor);
  }
  json_free(request);
  free(text);
  return more;
}

/* Write the hash of this program, and where it is. */
static bool own_program(char path[PATH_SIZE], char sha256[DIGEST_TEXT]) {
  ssize_t size = readlink("/proc/self/exe", path, PATH_SIZE - 1);
  if (size <= 0) return false;
  path[size] = 0;
  char bytes[1 << 14];
  Digest digest;
  int file = open(path, O_RDONLY); /* not closed: its lock says that it is in use */
  if (file < 0) return false;
  flock(file, LOCK_SH);
  digest_begin(&digest);
  for (ssize_t some; (some = read(file, bytes, sizeof(bytes))) > 0;) digest_add(&digest, bytes, (size_t)some);
  digest_end(&digest, sha256);
  return true;
}

/* Remove copies of this program that nobody runs any more: a board that lost its power kept them. */
static void sweep(const char* own) {
  char folder[PATH_SIZE], names[MOST_ENTRIES][ENTRY_SIZE];
  snprintf(folder, sizeof(folder), "%s", own);
  char* end = strrchr(folder, '/');
  if (!end) return;
  *end = 0;
  int count = folder_entries(folder, PROGRAM, names);
  for (int i = 0; i < count; ++i) {
    char path[PATH_SIZE + ENTRY_SIZE + 1];
    struct stat about;
    snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    if (!fstat(file, &about) && time(NULL) - about.st_mtime > OLD_S && !flock(file, LOCK_EX | LOCK_NB)) unlink(path);
    close(file);
  }
}

static void say_hello(const Worker* worker, const char* sha256) {
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"hello\",\"protocol\":%d,\"agent\":\"%s\",\"facts\":", PROTOCOL, sha256);
  put_facts_of_machine(&line, worker->root);
  put(&line, "}");
  say(worker->answers, &line);
}

int main(int count, char** words) {
  static Worker worker;
  char own[PATH_SIZE], sha256[DIGEST_TEXT] = "", lock[PATH_SIZE];
  Json* options = count == 2 ? json_parse(words[1]) : NULL;
  signal(SIGINT, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  worker.answers = fcntl(1, F_DUPFD_CLOEXEC, 3); /* what libraries print must not stand between answers */
  dup2(2, 1);
  const char* folder = json_text(options, "folder", NULL);
  if (!folder) {
    say_error(worker.answers, "request", "the agent takes its options as JSON, a folder among them");
    return 2;
  }
  if (!store_open(&worker.store, folder, (unsigned long long)json_number(options, "cache_bytes", 5e8))) {
    char message[PATH_SIZE + 64];
    snprintf(message, sizeof(message), "cannot work in %s (%s)", folder, strerror(errno));
    say_error(worker.answers, errno == ENOSPC ? "disk" : "request", message);
    return 1;
  }
  snprintf(lock, sizeof(lock), "%s/trilobit-board.lock", access("/tmp", W_OK) ? folder : "/tmp");
  worker.lock = json_text(options, "lock", lock);
  worker.root = json_text(options, "root", "");
  worker.learning_s = json_number(options, "learning_s", 1);
  worker.shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (worker.shared == MAP_FAILED || !own_program(own, sha256)) return 1;
  if (json_number(options, "brought", 0)) strcpy(brought, own);
  atexit(leave);
  sweep(own);
  meter_find(&worker.meter, worker.root);
  say_hello(&worker, sha256);
  Input input = {.descriptor = 0, .idle_s = json_number(options, "idle_s", 1800)};
  for (char* line; (line = input_line(&input)) && answer(&worker, line, &input);) continue;
  return 0;
}

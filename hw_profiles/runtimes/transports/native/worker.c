#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include "arrays.h"
#include "library.h"
#include "line.h"
#include "machine.h"

static const double LEARNING_S = 1.0, WAIT_S = 0.1, TELL_S = 2.0;
enum { MOST_ARRAYS = 32, MOST_WINDOWS = 64, HOLDER_SIZE = 4096 };

static void fail(const Worker* worker, const char* kind, const char* message) {
  say_error(worker->answers, kind, message);
  _exit(0);
}

static void tell(const Worker* worker, const char* fields) {
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"at\"%s}", fields);
  say(worker->answers, &line);
}

/* --- libraries --- */

typedef struct {
  Library library;
  int (*run)(const void* input, void* output);
  Tensor reads, gives;
} Opened;

/* Read what a library says of its input and output. */
static bool signature_of(Opened* opened, const Json** signature) {
  const char* text = library_find(&opened->library, "trilobit_signature");
  Json* read = text ? json_parse(strdup(text)) : NULL;
  const Json *inputs = json_get(read, "inputs"), *outputs = json_get(read, "outputs");
  if (signature) *signature = read;
  return json_count(inputs) == 1 && json_count(outputs) == 1 && tensor_of(inputs->first, &opened->reads) &&
         tensor_of(outputs->first, &opened->gives);
}

/* Load an artifact once more; returns why it cannot be, or NULL. */
static const char* open_artifact(const Worker* worker, const char* sha256, Opened* opened, const Json** signature,
                                 char problem[PROBLEM_SIZE]) {
  char path[PATH_SIZE];
  if (!store_path(&worker->store, sha256, path)) return "that is no SHA-256";
  const char* reason = library_load(path, &opened->library, problem);
  if (reason) return reason;
  opened->run = (int (*)(const void*, void*))library_find(&opened->library, "trilobit_run");
  if (!opened->run) return "it has no trilobit_run";
  return signature_of(opened, signature) ? NULL : "it does not say what it reads and gives";
}

/* Return the SHA-256 of an artifact that is in the store and still what it was. */
static const char* artifact_of(const Worker* worker, const Json* artifact) {
  const char* sha256 = json_text(artifact, "sha256", "");
  Content content = store_content(&worker->store, sha256);
  if (!content.bytes) {
    char message[96];
    snprintf(message, sizeof(message), "the file %.12s is not there", sha256);
    fail(worker, "missing", message);
  }
  free(content.bytes);
  return sha256;
}

static Opened opened_or_fail(const Worker* worker, const Json* artifact, const Json** signature) {
  char problem[PROBLEM_SIZE];
  Opened opened;
  const char* reason = open_artifact(worker, artifact_of(worker, artifact), &opened, signature, problem);
  if (reason) fail(worker, "artifact", reason);
  return opened;
}

/* --- what they read --- */

static Content content_or_fail(const Worker* worker, const char* sha256) {
  Content content = store_content(&worker->store, sha256);
  if (!content.bytes) fail(worker, "missing", "the file with its inputs is not there");
  return content;
}

/* Write made-up numbers: every byte for integers, about -2 to 2 for real ones. */
static void make_up(char* bytes, const Tensor* tensor) {
  uint64_t state = 0x9E3779B97F4A7C15u;
  size_t count = tensor_size(tensor) / item_size(tensor->dtype);
  for (size_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint8_t byte = (uint8_t)(state >> 56);
    if (!strcmp(tensor->dtype, "float32"))
      ((float*)(void*)bytes)[i] = (float)byte / 64 - 2;
    else
      bytes[i * item_size(tensor->dtype)] = (char)byte; /* a small number in types of more than a byte */
  }
}

/* Return one example of what a library reads: the client's, or made-up numbers. */
static const char* example_of(const Worker* worker, const char* sha256, const Tensor* tensor, char** example) {
  size_t size = tensor_size(tensor), bytes = 0;
  *example = get_aligned(size);
  if (!sha256) {
    make_up(*example, tensor);
    return NULL;
  }
  Content content = content_or_fail(worker, sha256);
  const void* array = npz_find(content.bytes, content.size, "array_0", &bytes);
  if (!array || bytes < size) return "the example is not what it reads";
  memcpy(*example, array, size);
  free(content.bytes);
  return NULL;
}

/* --- sessions --- */

typedef struct {
  Opened opened;
  char *input, *output;
  bool thread_clock;
} Session;

static void run_session(void* of, long count) {
  Session* session = of;
  for (long i = 0; i < count; ++i) session->opened.run(session->input, session->output);
}

static double time_session(void* of, long count) {
  Session* session = of;
  double (*clock)(void) = session->thread_clock ? thread_s : now_s;
  double start = clock();
  run_session(session, count);
  return clock() - start;
}

/* Open an artifact as something to be timed, and run it once; returns why it cannot be, or NULL. */
static const char* open_session(const Worker* worker, const char* sha256, const char* example, bool thread_clock,
                                Session* session, char problem[PROBLEM_SIZE]) {
  const char* reason = open_artifact(worker, sha256, &session->opened, NULL, problem);
  if (!reason) reason = example_of(worker, example, &session->opened.reads, &session->input);
  if (reason) return reason;
  session->output = get_aligned(tensor_size(&session->opened.gives));
  session->thread_clock = thread_clock;
  int code = session->opened.run(session->input, session->output);
  if (!code) return NULL;
  snprintf(problem, PROBLEM_SIZE, "a unit of it failed with code %d", code);
  return problem;
}

/* Open it in a process of its own first; returns why it does not run, or NULL. */
static const char* try_out(Worker* worker, const char* sha256, const char* example) {
  char* problem = worker->shared->problem;
  *problem = 0;
  pid_t child = fork();
  if (child < 0) return "no process can be started";
  if (!child) {
    char own[PROBLEM_SIZE];
    Session session;
    const char* reason = open_session(worker, sha256, example, false, &session, own);
    if (reason) snprintf(problem, sizeof(worker->shared->problem), "%s", reason);
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFSIGNALED(status)) {
    const char* name = strsignal(WTERMSIG(status));
    snprintf(problem, sizeof(worker->shared->problem), "it ended the process that ran it: %s", name ? name : "signal");
  }
  return *problem ? problem : NULL;
}

/* --- one measurement at a time --- */

static int open_lock(const char* path) {
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (file >= 0) fchmod(file, 0666); /* for whoever comes after us */
  return file >= 0 ? file : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
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

/* Wait for the board's lock; the system gives it back however this process ends. */
static void hold_lock(const Worker* worker, const Json* request) {
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

/* --- requests --- */

/* Libraries bring their kernels: the version is that of what made these, as the client says it. */
static void answer_engine(Worker* worker, const Json* request) {
  const Json* engine = json_get(request, "engine");
  Text line = {NULL, 0, 0};
  if (strcmp(json_text(engine, "name", ""), "library")) fail(worker, "engine", "this agent runs libraries only");
  put(&line, "{\"say\":\"done\",\"version\":");
  put_string(&line, json_text(json_get(engine, "options"), "version", ""));
  put(&line, ",\"packages\":{},\"providers\":[],\"energy\":");
  put_string(&line, worker->meter.description);
  put(&line, "}");
  say(worker->answers, &line);
}

static void answer_describe(Worker* worker, const Json* request) {
  const Json* signature;
  opened_or_fail(worker, json_get(request, "artifact"), &signature);
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"done\",\"inputs\":");
  put_json(&line, json_get(signature, "inputs"));
  put(&line, ",\"outputs\":");
  put_json(&line, json_get(signature, "outputs"));
  put(&line, "}");
  say(worker->answers, &line);
}

/* Give all that a library says of itself, which names its kernels. */
static void answer_kernels(Worker* worker, const Json* request) {
  Opened opened = opened_or_fail(worker, json_get(request, "artifact"), NULL);
  const char* signature = library_find(&opened.library, "trilobit_signature");
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"done\",\"graph\":");
  put_base64(&line, signature, strlen(signature));
  put(&line, "}");
  say(worker->answers, &line);
}

static void answer_run(Worker* worker, const Json* request) {
  Opened opened = opened_or_fail(worker, json_get(request, "artifact"), NULL);
  Content content = content_or_fail(worker, json_text(request, "inputs", ""));
  size_t bytes = 0, reads = tensor_size(&opened.reads), gives = tensor_size(&opened.gives);
  const char* array = npz_find(content.bytes, content.size, "array_0", &bytes);
  bool open = opened.reads.dimensions && opened.reads.shape[0] < 0;
  if (!array || !reads || bytes % reads || (!open && bytes != reads))
    fail(worker, "artifact", "the inputs are not what it reads");
  size_t count = bytes / reads;
  char *input = get_aligned(reads), *output = get_aligned(gives), *all = get_memory(count * gives);
  for (size_t i = 0; i < count; ++i) {
    memcpy(input, array + i * reads, reads);
    int code = opened.run(input, output);
    if (code) fail(worker, "artifact", "a unit of it failed");
    memcpy(all + i * gives, output, gives);
  }
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"done\",\"names\":[");
  put_string(&line, opened.gives.name);
  put(&line, "],\"npz\":");
  put_npz(&line, "output_0", &opened.gives, (long long)count, all);
  put(&line, "}");
  say(worker->answers, &line);
}

static bool by_thread(const Json* of) { return !strcmp(json_text(of, "clock", "thread"), "thread"); }

static void answer_time(Worker* worker, const Json* request) {
  char problem[PROBLEM_SIZE];
  Session session;
  const char* sha256 = artifact_of(worker, json_get(request, "artifact"));
  const char* reason =
      open_session(worker, sha256, json_text(request, "example", NULL), by_thread(request), &session, problem);
  if (reason) fail(worker, "artifact", reason);
  hold_lock(worker, request);
  if (by_thread(request)) pin(best_core(worker->root));
  double seconds = time_session(&session, (long)json_number(request, "count", 1));
  Text line = {NULL, 0, 0};
  put(&line, "{\"say\":\"done\",\"seconds\":%.12g}", seconds);
  say(worker->answers, &line);
}

/* --- samples --- */

typedef struct {
  const Worker* worker;
  Conditions conditions;
  double share;
  bool waiting;
} Watcher;

static void tell_progress(const Watcher* watcher) {
  char fields[96];
  snprintf(fields, sizeof(fields), ",\"share\":%.4f,\"waiting\":%s", watcher->share,
           watcher->waiting ? "true" : "false");
  tell(watcher->worker, fields);
}

static void tell_cooling(const Conditions* conditions) {
  /* the conditions are the first thing behind the worker in their watcher */
  tell_progress((const Watcher*)(const void*)((const char*)conditions - offsetof(Watcher, conditions)));
}

static double watch(void* of, double share, bool waiting) {
  Watcher* watcher = of;
  double before_s = watcher->conditions.throttled_s;
  watcher->share = share;
  watcher->waiting = waiting;
  if (conditions_look(&watcher->conditions, tell_cooling)) tell_progress(watcher);
  return watcher->conditions.throttled_s - before_s;
}

static Plan plan_of(const Json* plan) {
  return (Plan){
      .rounds = (long)json_number(plan, "rounds", 16),
      .sessions = (long)json_number(plan, "sessions", 2),
      .warmup_runs = (long)json_number(plan, "warmup_runs", 2),
      .window_s = json_number(plan, "window_s", 1.5e-4),
      .quiet = json_number(plan, "quiet", 1.06),
      .waiting_s = json_number(plan, "waiting_s", 40),
      .energy_s = json_number(plan, "energy_s", 0),
      .scale_disturbed = json_number(plan, "scale_disturbed", 0) != 0,
      .thread_clock = by_thread(plan),
  };
}

/* Open every artifact as often as the plan says; of one that cannot be, `errors` has the reason. */
static size_t open_all(Worker* worker, const Json* request, const Plan* plan, Function* functions, size_t* place,
                       char** errors) {
  const Json *artifact = json_get(request, "artifacts")->first, *context = NULL;
  size_t ready = 0, i = 0;
  if (json_get(request, "contexts")) context = json_get(request, "contexts")->first;
  for (; artifact; artifact = artifact->next, context = context ? context->next : NULL, ++i) {
    char fields[48], problem[PROBLEM_SIZE];
    snprintf(fields, sizeof(fields), ",\"index\":%zu", i);
    tell(worker, fields);
    const char *sha256 = artifact_of(worker, artifact), *example = json_text(artifact, "example", NULL);
    const char* reason = try_out(worker, sha256, example);
    void** sessions = get_memory((size_t)plan->sessions * sizeof(void*));
    for (long session = 0; session < plan->sessions && !reason; ++session) {
      sessions[session] = get_memory(sizeof(Session));
      reason = open_session(worker, sha256, example, plan->thread_clock, sessions[session], problem);
    }
    if (reason) {
      errors[i] = strdup(reason);
      continue;
    }
    functions[ready].sessions = sessions;
    functions[ready].context = context && context->kind == JSON_NUMBER ? (int)context->number : -1;
    place[ready++] = i;
  }
  return ready;
}

static void put_samples(Text* text, const Function* function, double waited_s, const double* energy_j) {
  double load;
  put(text, "{\"seconds\":[");
  for (size_t i = 0; i < function->count; ++i) put(text, "%s%.12g", i ? "," : "", function->seconds[i]);
  put(text, "],\"quiet_share\":%.15g,\"waited_s\":%.6g", function->quiet_share, waited_s);
  if (getloadavg(&load, 1) == 1)
    put(text, ",\"load\":%.4g", load);
  else
    put(text, ",\"load\":null");
  if (energy_j)
    put(text, ",\"energy_j\":%.9g}", *energy_j);
  else
    put(text, ",\"energy_j\":null}");
}

static void put_all(Worker* worker, Text* line, const Function* functions, const size_t* place, size_t ready,
                    char* const* errors, size_t count, const Plan* plan, double waited_s) {
  put(line, "{\"say\":\"done\",\"samples\":[");
  for (size_t i = 0, next = 0; i < count; ++i) {
    if (i) put(line, ",");
    if (errors[i]) {
      put(line, "{\"error\":");
      put_string(line, errors[i]);
      put(line, "}");
      continue;
    }
    double joules;
    Work work = {run_session, next < ready && place[next] == i ? functions[next].sessions[0] : NULL};
    bool counted = plan->energy_s > 0 && measure_energy(&worker->meter, work, plan->energy_s, &joules);
    if (counted) tell(worker, ",\"share\":1.0,\"waiting\":false");
    put_samples(line, &functions[next++], waited_s, counted ? &joules : NULL);
  }
  put(line, "],\"conditions\":");
}

static void answer_sample(Worker* worker, const Json* request) {
  size_t count = json_count(json_get(request, "artifacts"));
  Plan plan = plan_of(json_get(request, "plan"));
  if (!count || plan.rounds < 1 || plan.sessions < 1) fail(worker, "request", "nothing to be timed, or no rounds");
  Function* functions = get_memory(count * sizeof(Function));
  size_t* place = get_memory(count * sizeof(size_t));
  char** errors = get_memory(count * sizeof(char*));
  size_t ready = open_all(worker, request, &plan, functions, place, errors);
  hold_lock(worker, request);
  int core = best_core(worker->root);
  if (plan.thread_clock) pin(core);
  Watcher watcher = {.worker = worker};
  conditions_begin(&watcher.conditions, worker->root, core, plan.thread_clock, plan.waiting_s);
  Reference* reference = &worker->shared->reference;
  reference->computation = matrix_product;
  if (!reference->seen) reference_learn(reference, LEARNING_S);
  Passes passes = {plan, time_session, now_s, watch, &watcher};
  double waited_s = ready ? interleave(functions, ready, &passes, reference) : 0;
  Text line = {NULL, 0, 0};
  put_all(worker, &line, functions, place, ready, errors, count, &plan, waited_s);
  put_conditions(&line, &watcher.conditions);
  put(&line, "}");
  say(worker->answers, &line);
}

/* --- schedules that are tried out --- */

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

static void answer_trial(Worker* worker, const Json* request) {
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

void worker_answer(Worker* worker, const Json* request) {
  static const struct {
    const char* name;
    void (*answer)(Worker* worker, const Json* request);
  } known[] = {
      {"engine", answer_engine}, {"describe", answer_describe}, {"run", answer_run},     {"time", answer_time},
      {"kernels", answer_kernels}, {"sample", answer_sample},   {"trial", answer_trial},
  };
  const char* name = json_text(request, "do", "");
  for (size_t i = 0; i < sizeof(known) / sizeof(*known); ++i)
    if (!strcmp(name, known[i].name)) {
      known[i].answer(worker, request);
      return;
    }
  char message[160];
  snprintf(message, sizeof(message), "no such request: %.80s", name);
  fail(worker, "request", message);
}

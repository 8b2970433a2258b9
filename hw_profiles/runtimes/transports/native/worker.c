#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arrays.h"
#include "library.h"
#include "line.h"
#include "machine.h"

static const double TELL_S = 2.0;

void fail(const Worker* worker, const char* kind, const char* message) {
  say_error(worker->answers, kind, message);
  _exit(0);
}

void tell(const Worker* worker, const char* fields) {
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

Content content_or_fail(const Worker* worker, const char* sha256) {
  Content content = store_content(&worker->store, sha256);
  if (!content.bytes) fail(worker, "missing", "a file that it needs is not there");
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
  hold_lock(worker, request); /* answers would disturb who measures */
  double told_s = now_s();
  for (size_t i = 0; i < count; ++i) {
    if (now_s() - told_s > TELL_S) {
      tell(worker, "");
      told_s = now_s();
    }
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
  if (!reference->seen) reference_learn(reference, worker->learning_s);
  Passes passes = {plan, time_session, now_s, watch, &watcher};
  double waited_s = ready ? interleave(functions, ready, &passes, reference) : 0;
  Text line = {NULL, 0, 0};
  put_all(worker, &line, functions, place, ready, errors, count, &plan, waited_s);
  put_conditions(&line, &watcher.conditions);
  put(&line, "}");
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

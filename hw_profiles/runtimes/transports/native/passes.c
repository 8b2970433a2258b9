#include "passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "text.h"

static const double FASTER_SHARE = 0.005, ALIKE = 1.25;
enum { REFERENCE_SIZE = 48, REFERENCE_RUNS = 3, FIRST_RUNS = 3, DENSEST = 3 };

/* --- the reference --- */

double matrix_product(void* of, long count) {
  static float a[REFERENCE_SIZE][REFERENCE_SIZE], c[REFERENCE_SIZE][REFERENCE_SIZE];
  (void)of;
  double start = now_s();
  for (long run = 0; run < count; ++run) {
    for (int i = 0; i < REFERENCE_SIZE; ++i) {
      memset(c[i], 0, sizeof(c[i]));
      for (int k = 0; k < REFERENCE_SIZE; ++k)
        for (int j = 0; j < REFERENCE_SIZE; ++j) c[i][j] += a[i][k] * a[k][j];
    }
    __asm__ volatile("" : : "r"(c), "r"(a) : "memory"); /* every product counts */
  }
  return now_s() - start;
}

static double lucky_s(const Reference* reference) {
  long at = (long)(FASTER_SHARE * (double)reference->seen);
  return reference->fastest_s[at < FASTER ? at : FASTER];
}

double reference_measure(Reference* reference) {
  reference->computation(reference->of, 1); /* what ran before has evicted its numbers */
  double elapsed_s = reference->computation(reference->of, REFERENCE_RUNS);
  int held = reference->seen < FASTER + 1 ? (int)reference->seen : FASTER + 1;
  int at = held;
  for (; at > 0 && reference->fastest_s[at - 1] > elapsed_s; --at)
    reference->fastest_s[at] = reference->fastest_s[at - 1];
  reference->fastest_s[at] = elapsed_s;
  ++reference->seen;
  if (elapsed_s <= ALIKE * lucky_s(reference)) reference->quiet_s[reference->quiet++ % RECENT] = elapsed_s;
  return elapsed_s;
}

void reference_learn(Reference* reference, double seconds) {
  double end = now_s() + seconds;
  while (!reference->seen || now_s() < end) reference_measure(reference);
  reference->quiet = 0; /* one after the other they are faster than between networks */
}

static int ascending(const void* one, const void* other) {
  double difference = *(const double*)one - *(const double*)other;
  return (difference > 0) - (difference < 0);
}

double reference_usual(const Reference* reference) {
  double quiet_s[RECENT], limit_s = ALIKE * lucky_s(reference);
  size_t count = 0;
  for (long i = 0; i < reference->quiet && i < RECENT; ++i)
    if (reference->quiet_s[i] <= limit_s) quiet_s[count++] = reference->quiet_s[i];
  if (!count) return lucky_s(reference);
  qsort(quiet_s, count, sizeof(double), ascending);
  return quiet_s[count / 2];
}

/* --- contexts --- */

typedef struct {
  double seconds, before_s, after_s;
} Window;

typedef struct {
  size_t* members;
  size_t count;
  Window* windows; /* `count` of each pass */
  double* worst_s; /* of each pass: the longest reference around any of its windows */
  size_t passes, room;
  bool done; /* has its undisturbed windows */
} Context;

static size_t by_context(const Function* functions, size_t count, Context* contexts) {
  size_t used = 0;
  for (size_t i = 0; i < count; ++i) {
    size_t at = 0;
    while (at < used && (functions[i].context < 0 || functions[contexts[at].members[0]].context != functions[i].context))
      ++at;
    if (at == used) contexts[used++].members = get_memory(count * sizeof(size_t));
    contexts[at].members[contexts[at].count++] = i;
  }
  return used;
}

static Window* next_pass(Context* context) {
  if (context->passes == context->room) {
    context->room = 2 * context->room + 32;
    context->windows = realloc(context->windows, context->room * context->count * sizeof(Window));
    context->worst_s = realloc(context->worst_s, context->room * sizeof(double));
    if (!context->windows || !context->worst_s) abort();
  }
  return context->windows + context->count * context->passes++;
}

static size_t undisturbed(const Context* context, double limit_s) {
  size_t quiet = 0;
  for (size_t pass = 0; pass < context->passes; ++pass) quiet += context->worst_s[pass] <= limit_s;
  return quiet;
}

/* The speeds at which passes count, as seconds of the reference. */
typedef struct {
  double limit_s; /* of undisturbed ones */
  double level_s; /* at which functions are compared */
  bool quiet;     /* whether that is the speed of a quiet core */
} Speed;

/* Return the usual time of the reference, or where most functions hardly ever had a quiet core, the middle of the
 * densest third of what was seen. */
static Speed speed_of(const Context* contexts, size_t total, const Plan* plan, double usual_s) {
  Speed speed = {plan->quiet * usual_s, usual_s, true};
  size_t enough = plan->rounds < ENOUGH_UNDISTURBED ? (size_t)plan->rounds : ENOUGH_UNDISTURBED, quiet = 0, seen = 0;
  for (size_t i = 0; i < total; ++i) {
    quiet += undisturbed(&contexts[i], speed.limit_s) >= enough;
    seen += contexts[i].passes;
  }
  if (2 * quiet >= total) return speed;
  double* seen_s = get_memory(seen * sizeof(double));
  size_t count = 0, width = seen / DENSEST, first = 0;
  for (size_t i = 0; i < total; ++i) {
    memcpy(seen_s + count, contexts[i].worst_s, contexts[i].passes * sizeof(double));
    count += contexts[i].passes;
  }
  qsort(seen_s, seen, sizeof(double), ascending);
  for (size_t i = 0; i < seen - width; ++i)
    if (seen_s[i + width] / seen_s[i] < seen_s[first + width] / seen_s[first]) first = i;
  speed.level_s = seen_s[first + width / 2];
  speed.quiet = speed.level_s == usual_s;
  free(seen_s);
  return speed;
}

/* Mark the passes that count: the undisturbed ones, or where those are too few the nearest to the level. */
static size_t choose(const Context* context, const Plan* plan, Speed speed, bool* chosen) {
  size_t rounds = (size_t)plan->rounds, quiet = undisturbed(context, speed.limit_s), count = 0;
  size_t enough = rounds < ENOUGH_UNDISTURBED ? rounds : ENOUGH_UNDISTURBED;
  for (size_t pass = 0; pass < context->passes; ++pass) {
    if (quiet >= enough && speed.quiet) {
      chosen[pass] = context->worst_s[pass] <= speed.limit_s;
    } else {
      double off = fabs(log(context->worst_s[pass] / speed.level_s));
      size_t better = 0;
      for (size_t other = 0; other < context->passes; ++other) {
        double its = fabs(log(context->worst_s[other] / speed.level_s));
        better += its < off || (its == off && other < pass);
      }
      chosen[pass] = better < rounds;
    }
    count += chosen[pass];
  }
  return count;
}

static void take_samples(const Context* context, Function* functions, const Plan* plan, Speed speed) {
  bool* chosen = get_memory(context->passes * sizeof(bool));
  size_t count = choose(context, plan, speed, chosen), quiet = 0;
  for (size_t pass = 0; pass < context->passes; ++pass)
    quiet += chosen[pass] && context->worst_s[pass] <= speed.limit_s;
  for (size_t member = 0; member < context->count; ++member) {
    Function* function = &functions[context->members[member]];
    function->seconds = get_memory(count * sizeof(double));
    function->quiet_share = count ? (double)quiet / (double)count : 0;
    for (size_t pass = 0; pass < context->passes; ++pass) {
      const Window* window = &context->windows[pass * context->count + member];
      bool other = !speed.quiet || context->worst_s[pass] > speed.limit_s;
      double scale = plan->scale_disturbed && other ? speed.level_s / ((window->before_s + window->after_s) / 2) : 1;
      if (chosen[pass]) function->seconds[function->count++] = window->seconds * scale;
    }
  }
  free(chosen);
}

/* --- passes --- */

static long runs_per_window(const Function* function, const Passes* passes) {
  long sessions = passes->plan.sessions;
  for (long i = 0; i < sessions; ++i) passes->timed(function->sessions[i], 1);
  if (passes->timed(function->sessions[0], 1) >= passes->plan.window_s) return 1; /* too long for more */
  for (long i = 0; i < sessions; ++i) passes->timed(function->sessions[i], FIRST_RUNS - 1);
  double once_s = INFINITY;
  for (int i = 0; i < FIRST_RUNS; ++i) once_s = fmin(once_s, passes->timed(function->sessions[0], 1));
  long runs = lrint(passes->plan.window_s / fmax(once_s, 1e-9));
  return runs > 1 ? runs : 1;
}

/* Make a pass over one context: a window of each function; the reference after one is that before the next. */
static double make_pass(Context* context, const Function* functions, const long* runs, size_t turn,
                        const Passes* passes, Reference* reference, double before_s) {
  Window* windows = next_pass(context);
  double worst_s = 0;
  for (size_t member = 0; member < context->count; ++member) {
    size_t i = context->members[member];
    void* session = functions[i].sessions[turn % (size_t)passes->plan.sessions];
    if (passes->plan.warmup_runs) passes->timed(session, passes->plan.warmup_runs);
    double elapsed_s = passes->timed(session, runs[i]), after_s = reference_measure(reference);
    windows[member] = (Window){elapsed_s / (double)runs[i], before_s, after_s};
    worst_s = fmax(worst_s, fmax(before_s, after_s));
    before_s = after_s;
  }
  context->worst_s[context->passes - 1] = worst_s;
  return before_s;
}

double interleave(Function* functions, size_t count, const Passes* passes, Reference* reference) {
  const Plan* plan = &passes->plan;
  Context* contexts = get_memory(count * sizeof(Context));
  size_t total = by_context(functions, count, contexts), left = total, turn = 0;
  long* runs = get_memory(count * sizeof(long));
  for (size_t i = 0; i < count; ++i) {
    runs[i] = runs_per_window(&functions[i], passes);
    passes->watch(passes->watcher, 0, false);
  }
  double deadline = INFINITY, began_waiting = 0, held_up_s = 0;
  while (left && passes->clock() < deadline) {
    double before_s = reference_measure(reference);
    for (size_t i = 0; i < total; ++i)
      if (!contexts[i].done)
        before_s = make_pass(&contexts[i], functions, runs, turn, passes, reference, before_s);
    double limit_s = plan->quiet * reference_usual(reference);
    left = 0;
    for (size_t i = 0; i < total; ++i) {
      contexts[i].done = undisturbed(&contexts[i], limit_s) >= (size_t)plan->rounds;
      left += !contexts[i].done;
    }
    if (++turn == (size_t)plan->rounds) {
      began_waiting = passes->clock();
      deadline = began_waiting + fmax(0, plan->waiting_s - held_up_s);
    }
    held_up_s += passes->watch(passes->watcher, 1 - (double)left / (double)total, turn > (size_t)plan->rounds);
  }
  Speed speed = speed_of(contexts, total, plan, reference_usual(reference));
  for (size_t i = 0; i < total; ++i) take_samples(&contexts[i], functions, plan, speed);
  return (turn > (size_t)plan->rounds ? passes->clock() - began_waiting : 0) + held_up_s;
}

/* Timing functions in passes, as hw_profiles/measure/interleave.py does, which this is compared with.
 *
 * One short window of each, again and again, until each has its undisturbed windows; a fixed reference workload
 * tells which are.
 */
#ifndef TRILOBIT_PASSES_H
#define TRILOBIT_PASSES_H

#include <stdbool.h>
#include <stddef.h>

enum { FASTER = 50, RECENT = 512, ENOUGH_UNDISTURBED = 5 };

/* The fields of a `hw_profiles.measure.measurement.MeasurePlan` that count here. */
typedef struct {
  long rounds, sessions, warmup_runs;
  double window_s, quiet, waiting_s, energy_s;
  bool scale_disturbed, thread_clock;
} Plan;

/* Runs something so often; gives the seconds of all together. */
typedef double (*Timed)(void* of, long count);

/* A fixed computation, and the time that it takes on an undisturbed core, learnt from all its runs. */
typedef struct {
  Timed computation;
  void* of;
  long seen;
  double fastest_s[FASTER + 2]; /* the first of them in ascending order */
  long quiet;                   /* how many of them, since it was learnt, were on a quiet core */
  double quiet_s[RECENT];       /* the latest of those */
} Reference;

/* Learn for so long; a reference that has been learnt already goes on learning by itself. */
void reference_learn(Reference* reference, double seconds);
/* Return seconds that it takes now. */
double reference_measure(Reference* reference);
/* Return its usual time on a quiet core. */
double reference_usual(const Reference* reference);
/* The usual computation: a matrix product that fits the first-level cache. */
double matrix_product(void* of, long count);

/* One of the functions that are timed together. */
typedef struct {
  void* const* sessions; /* passes take them in turns */
  int context;           /* those of one get samples of the same passes; -1 stands by itself */
  /* what came out */
  double* seconds; /* per run, of each window that counts */
  size_t count;
  double quiet_share;
} Function;

typedef struct {
  Plan plan;
  Timed timed;
  double (*clock)(void); /* by which passes wait */
  /* Told after every pass the share of functions that have their undisturbed windows, and whether it waits;
   * gives the seconds that it made everything wait. */
  double (*watch)(void* of, double share, bool waiting);
  void* watcher;
} Passes;

/* Fill in what comes out of each function; returns the seconds spent only on waiting for quiet. */
double interleave(Function* functions, size_t count, const Passes* passes, Reference* reference);

#endif

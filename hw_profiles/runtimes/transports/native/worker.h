/* What runs and times libraries: each request in a process of its own, so that one that crashes ends nothing
 * else.
 */
#ifndef TRILOBIT_WORKER_H
#define TRILOBIT_WORKER_H

#include "energy.h"
#include "passes.h"
#include "store.h"
#include "text.h"

/* What outlives a request. */
typedef struct {
  Reference reference;
  char problem[256]; /* of an artifact that was tried out */
} Shared;

typedef struct {
  Store store;
  Meter meter;
  Shared* shared; /* by all processes */
  const char *root, *lock;
  int answers;
  double learning_s; /* to learn how long the reference workload usually takes */
} Worker;

/* Answer a request; ends where it cannot be. */
void worker_answer(Worker* worker, const Json* request);
/* Answer `trial`: run a function of a library on arrays, and time it (trial.c). */
void answer_trial(Worker* worker, const Json* request);

/* Wait for the board's lock; the system gives it back however this process ends (lock.c). */
void hold_lock(const Worker* worker, const Json* request);
/* Say why a request cannot be answered, and end this process. */
void fail(const Worker* worker, const char* kind, const char* message);
/* Say that it goes on, with further fields. */
void tell(const Worker* worker, const char* fields);
/* Read a file of the store that must be there. */
Content content_or_fail(const Worker* worker, const char* sha256);

#endif

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
} Worker;

/* Answer a request; ends where it cannot be. */
void worker_answer(Worker* worker, const Json* request);

#endif

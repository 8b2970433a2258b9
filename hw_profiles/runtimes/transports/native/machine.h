/* What a board says of itself: its processor, how fast that runs, how hot it is, and what it draws. */
#ifndef TRILOBIT_MACHINE_H
#define TRILOBIT_MACHINE_H

#include <stdbool.h>

#include "text.h"

/* Add an object of what stays the same. `root` is / but in tests. */
void put_facts_of_machine(Text* text, const char* root);
/* Return the fastest core that this process may use, the last of several alike. */
int best_core(const char* root);
/* Run on one core only, where the system lets us; a negative one is none. */
void pin(int core);
/* Return seconds that only ever grow, or those that this thread had a core. */
double now_s(void);
double thread_s(void);

/* What was seen during a measurement. */
typedef struct {
  const char* root;
  int core;
  bool pinned;
  double left_s; /* that may be spent on cooling */
  double throttled_s, next_s;
  long long least_hz, most_hz;
  double first_c, highest_c;
  bool felt; /* whether there is a temperature */
} Conditions;

void conditions_begin(Conditions* conditions, const char* root, int core, bool pinned, double budget_s);
/* Look, where it is time to: true then. Waits while heat slows the board down and there is time left for that,
 * and calls `tell` meanwhile. */
bool conditions_look(Conditions* conditions, void (*tell)(const Conditions* conditions));
void put_conditions(Text* text, const Conditions* conditions);

#endif

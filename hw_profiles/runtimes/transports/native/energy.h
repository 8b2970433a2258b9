/* Joules: from Linux's powercap counters, or from INA sensors, as hw_profiles/measure/energy has them. */
#ifndef TRILOBIT_ENERGY_H
#define TRILOBIT_ENERGY_H

#include <stdbool.h>

enum { MOST_RAILS = 16, NAME_SIZE = 64, DESCRIPTION_SIZE = 512 };

typedef enum { NO_METER, POWERCAP, SENSORS } MeterKind;

typedef struct {
  char name[NAME_SIZE];
  char first[320], second[320]; /* files: microjoules, microwatts, or millivolts and milliamperes */
  double range_uj, last_uj;     /* of a counter */
} Rail;

typedef struct {
  MeterKind kind;
  char description[DESCRIPTION_SIZE]; /* what is counted, or why nothing is */
  Rail rails[MOST_RAILS];
  int count;
  double total_j, last_s, last_w; /* so far; the last sample of power */
} Meter;

/* Find what this board has. */
void meter_find(Meter* meter, const char* root);

/* Something that runs so often. */
typedef struct {
  void (*run)(void* of, long count);
  void* of;
} Work;

/* Measure joules per run; false where nothing counts, or what does has stopped. */
bool measure_energy(Meter* meter, Work work, double seconds, double* joules);

#endif

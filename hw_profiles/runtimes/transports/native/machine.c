#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "files.h"

static const double HOT_C = 85.0;   /* where the board does not say at what temperature it slows down */
static const double COOL_BY_C = 5;  /* so far below that the next windows are made */
static const double SLOWED = 0.9;   /* of its highest frequency: a busy core is slower only when held back */
static const double LOOK_S = 1.0, COOLING_S = 0.5;
static const double LOWEST_C = -40, HIGHEST_C = 200; /* what a sensor can mean */

static double seconds_of(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

double now_s(void) { return seconds_of(CLOCK_MONOTONIC); }

double thread_s(void) { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

static double frequency_hz(const char* root, int core, const char* which) {
  double khz;
  return file_number(&khz, "%s/sys/devices/system/cpu/cpu%d/cpufreq/%s", root, core, which) ? 1000 * khz : 0;
}

static bool may_use(const cpu_set_t* set, int core) { return CPU_ISSET(core, set); }

int best_core(const char* root) {
  cpu_set_t set;
  int best = 0;
  double best_hz = -1;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set)) return 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    double hz = may_use(&set, core) ? frequency_hz(root, core, "cpuinfo_max_freq") : -1;
    if (hz >= best_hz && may_use(&set, core)) {
      best = core;
      best_hz = hz;
    }
  }
  return best;
}

void pin(int core) {
  cpu_set_t set;
  if (core < 0) return;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

/* --- heat --- */

/* Return whether a zone of the thermal framework is of the processor, by its type. */
static bool of_processor(const char* type) {
  static const char* const words[] = {"cpu", "soc", "x86_pkg", "core", "cluster", "big", "little", "acpitz", "tsens",
                                      "bcm"};
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); ++i)
    if (strcasestr(type, words[i])) return true;
  return false;
}

static bool sensible(double milli_c) { return milli_c / 1000 > LOWEST_C && milli_c / 1000 < HIGHEST_C; }

static double trip_c(const char* root, const char* zone) {
  double lowest = HOT_C, milli_c;
  for (int i = 0; i < 16; ++i) {
    char type[64];
    if (!file_text(type, sizeof(type), "%s/sys/class/thermal/%s/trip_point_%d_type", root, zone, i)) continue;
    if (strcmp(type, "passive") && strcmp(type, "hot")) continue;
    bool told = file_number(&milli_c, "%s/sys/class/thermal/%s/trip_point_%d_temp", root, zone, i);
    if (told && milli_c > 0 && sensible(milli_c) && milli_c / 1000 < lowest) lowest = milli_c / 1000;
  }
  return lowest;
}

/* Find the temperature of the hottest part, and where the first one slows down; false where nothing is felt. */
static bool temperature(const char* root, double* highest_c, double* limit_c) {
  char path[512];
  bool felt = false, likely_only = false;
  snprintf(path, sizeof(path), "%s/sys/class/thermal", root);
  *highest_c = LOWEST_C;
  *limit_c = HOT_C;
  for (int pass = 0; pass < 2 && !felt; ++pass) {
    likely_only = pass == 0;
    DIR* folder = opendir(path);
    if (!folder) return false;
    for (struct dirent* entry; (entry = readdir(folder));) {
      char type[64];
      double milli_c;
      if (strncmp(entry->d_name, "thermal_zone", 12)) continue;
      bool typed = file_text(type, sizeof(type), "%s/%s/type", path, entry->d_name);
      if (likely_only && !(typed && of_processor(type))) continue;
      if (!file_number(&milli_c, "%s/%s/temp", path, entry->d_name) || !sensible(milli_c)) continue;
      double trip = trip_c(root, entry->d_name);
      if (milli_c / 1000 > *highest_c) *highest_c = milli_c / 1000;
      if (trip < *limit_c) *limit_c = trip;
      felt = true;
    }
    closedir(folder);
  }
  return felt;
}

/* Return whether heat slows the core down now: it is as hot as it may become, or below its highest frequency
 * although nothing but heat would make it. */
static bool held_back(const Conditions* conditions, bool felt, double celsius, double limit_c) {
  char governor[64];
  const char* root = conditions->root;
  int core = conditions->core;
  if (felt && celsius >= limit_c) return true;
  if (!file_text(governor, sizeof(governor), "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", root, core))
    return false;
  double now = frequency_hz(root, core, "scaling_cur_freq"), highest = frequency_hz(root, core, "scaling_max_freq");
  return !strcmp(governor, "performance") && now > 0 && now < SLOWED * highest;
}

static void note(Conditions* conditions, bool felt, double celsius) {
  long long hz = (long long)frequency_hz(conditions->root, conditions->core, "scaling_cur_freq");
  if (hz && (!conditions->least_hz || hz < conditions->least_hz)) conditions->least_hz = hz;
  if (hz > conditions->most_hz) conditions->most_hz = hz;
  if (felt && !conditions->felt) conditions->first_c = conditions->highest_c = celsius;
  if (felt && celsius > conditions->highest_c) conditions->highest_c = celsius;
  conditions->felt |= felt;
}

void conditions_begin(Conditions* conditions, const char* root, int core, bool pinned, double budget_s) {
  *conditions = (Conditions){.root = root, .core = core, .pinned = pinned, .left_s = budget_s};
}

bool conditions_look(Conditions* conditions, void (*tell)(const Conditions* conditions)) {
  double celsius, limit_c;
  if (now_s() < conditions->next_s) return false;
  bool felt = temperature(conditions->root, &celsius, &limit_c);
  note(conditions, felt, celsius);
  bool hot = held_back(conditions, felt, celsius, limit_c);
  while (hot && conditions->throttled_s < conditions->left_s) {
    double start = now_s();
    struct timespec pause = {0, (long)(1e9 * COOLING_S)};
    nanosleep(&pause, NULL);
    conditions->throttled_s += now_s() - start;
    felt = temperature(conditions->root, &celsius, &limit_c);
    note(conditions, felt, celsius);
    hot = held_back(conditions, felt, celsius, limit_c) || (felt && celsius >= limit_c - COOL_BY_C);
    tell(conditions);
  }
  conditions->next_s = now_s() + LOOK_S;
  return true;
}

void put_conditions(Text* text, const Conditions* conditions) {
  char governor[64];
  put(text, "{\"core\":%d,\"pinned\":%s", conditions->core, conditions->pinned ? "true" : "false");
  if (file_text(governor, sizeof(governor), "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor",
                conditions->root, conditions->core)) {
    put(text, ",\"governor\":");
    put_string(text, governor);
  } else {
    put(text, ",\"governor\":null");
  }
  if (conditions->most_hz)
    put(text, ",\"frequency_hz\":[%lld,%lld]", conditions->least_hz, conditions->most_hz);
  else
    put(text, ",\"frequency_hz\":null");
  if (conditions->felt)
    put(text, ",\"temperature_c\":[%.15g,%.15g]", conditions->first_c, conditions->highest_c);
  else
    put(text, ",\"temperature_c\":null");
  put(text, ",\"throttled_s\":%.6g}", conditions->throttled_s);
}

/* --- facts --- */

/* Copy the value of the first line `key : value` of /proc/cpuinfo; false where there is none. */
static bool cpuinfo(const char* root, const char* key, char* value, size_t size) {
  char path[512], line[4096];
  snprintf(path, sizeof(path), "%s/proc/cpuinfo", root);
  FILE* file = fopen(path, "re");
  bool found = false;
  while (file && !found && fgets(line, sizeof(line), file)) {
    char* colon = strchr(line, ':');
    if (!colon || strncmp(line, key, strlen(key)) || !strchr(" \t:", line[strlen(key)])) continue;
    snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    value[strcspn(value, "\n")] = 0;
    found = *value != 0;
  }
  if (file) fclose(file);
  return found;
}

static void put_processor(Text* text, const char* root, const char* machine) {
  static const char* const keys[] = {"model name", "Hardware", "Model"};
  char value[256];
  for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); ++i)
    if (cpuinfo(root, keys[i], value, sizeof(value))) {
      put_string(text, value);
      return;
    }
  put_string(text, file_text(value, sizeof(value), "%s/proc/device-tree/model", root) ? value : machine);
}

static void put_flags(Text* text, const char* root) {
  char flags[4096];
  bool some = cpuinfo(root, "flags", flags, sizeof(flags)) || cpuinfo(root, "Features", flags, sizeof(flags));
  put(text, "[");
  const char* comma = "";
  for (char* word = some ? strtok(flags, " ") : NULL; word; word = strtok(NULL, " ")) {
    put(text, "%s", comma);
    put_string(text, word);
    comma = ",";
  }
  put(text, "]");
}

void put_facts_of_machine(Text* text, const char* root) {
  struct utsname name;
  char governor[64];
  int core = best_core(root);
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  uname(&name);
  char system[2 * sizeof(name.sysname) + 2];
  snprintf(system, sizeof(system), "%s %s", name.sysname, name.release);
  put(text, "{\"system\":");
  put_string(text, system);
  put(text, ",\"machine\":");
  put_string(text, name.machine);
  put(text, ",\"cpu\":");
  put_processor(text, root, name.machine);
  put(text, ",\"cores\":%d,\"core\":%d,\"python\":\"\",\"governor\":", CPU_COUNT(&set), core);
  if (file_text(governor, sizeof(governor), "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", root, core))
    put_string(text, governor);
  else
    put(text, "null");
  double hz = frequency_hz(root, core, "cpuinfo_max_freq");
  if (hz)
    put(text, ",\"max_frequency_hz\":%.0f", hz);
  else
    put(text, ",\"max_frequency_hz\":null");
  put(text, ",\"memory_bytes\":%lld,\"flags\":", (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
  put_flags(text, root);
  put(text, "}");
}

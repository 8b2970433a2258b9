#include "energy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "files.h"
#include "machine.h"

static const double BATCH_S = 1e-3, STUCK_S = 2.0, SAMPLE_S = 0.02;
enum { COUNTER_UPDATES = 50, SENSOR_UPDATES = 25, LOOKS = 100, CHANNELS = 8 };

/* --- powercap --- */

static bool known_rail(const Meter* meter, const char* name) {
  for (int i = 0; i < meter->count; ++i)
    if (!strcmp(meter->rails[i].name, name)) return true;
  return false;
}

static void find_counters(Meter* meter, const char* root) {
  char folder[128], names[MOST_ENTRIES][ENTRY_SIZE];
  snprintf(folder, sizeof(folder), "%s/sys/class/powercap", root);
  int entries = folder_entries(folder, "", names);
  for (int mmio = 0; mmio < 2; ++mmio) /* `intel-rapl-mmio` shows what `intel-rapl` shows a second time */
    for (int i = 0; i < entries && meter->count < MOST_RAILS; ++i) {
      Rail* rail = &meter->rails[meter->count];
      if (mmio != (strstr(names[i], "mmio") != NULL)) continue;
      if (!file_text(rail->name, NAME_SIZE, "%s/%s/name", folder, names[i])) continue;
      if (strncmp(rail->name, "package", 7) || known_rail(meter, rail->name)) continue;
      snprintf(rail->first, sizeof(rail->first), "%s/%s/energy_uj", folder, names[i]);
      bool good = file_number(&rail->range_uj, "%s/%s/max_energy_range_uj", folder, names[i]);
      if (good && file_number(&rail->last_uj, "%s", rail->first)) ++meter->count;
    }
}

/* Add what counters counted since they were last read; false where one cannot be read. */
static bool read_counters(Meter* meter) {
  for (int i = 0; i < meter->count; ++i) {
    Rail* rail = &meter->rails[i];
    double now_uj;
    if (!file_number(&now_uj, "%s", rail->first)) return false;
    double turned_uj = now_uj < rail->last_uj ? rail->range_uj : 0;
    meter->total_j += 1e-6 * (now_uj - rail->last_uj + turned_uj);
    rail->last_uj = now_uj;
  }
  return true;
}

/* --- sensors --- */

static bool rail_watts(const Rail* rail, double* watts) {
  double one, two = 1;
  if (!file_number(&one, "%s", rail->first) || (*rail->second && !file_number(&two, "%s", rail->second))) return false;
  *watts = 1e-6 * one * two;
  return true;
}

static bool read_sensors(Meter* meter) {
  double now = now_s(), watts = 0, more;
  if (meter->last_s && now - meter->last_s < SAMPLE_S) return true;
  for (int i = 0; i < meter->count; ++i) {
    if (!rail_watts(&meter->rails[i], &more)) return false;
    watts += more;
  }
  if (meter->last_s) meter->total_j += (now - meter->last_s) * (meter->last_w + watts) / 2;
  meter->last_s = now;
  meter->last_w = watts;
  return true;
}

static void find_channel(Meter* meter, const char* folder, const char* chip, int channel) {
  static const char* const labels[] = {"power", "in", "curr"};
  Rail* rail = &meter->rails[meter->count];
  double number;
  memset(rail, 0, sizeof(*rail));
  if (file_number(&number, "%s/power%d_input", folder, channel)) {
    snprintf(rail->first, sizeof(rail->first), "%s/power%d_input", folder, channel);
  } else {
    snprintf(rail->first, sizeof(rail->first), "%s/in%d_input", folder, channel);
    snprintf(rail->second, sizeof(rail->second), "%s/curr%d_input", folder, channel);
  }
  bool named = false;
  for (int i = 0; i < 3 && !named; ++i)
    named = file_text(rail->name, NAME_SIZE, "%s/%s%d_label", folder, labels[i], channel);
  if (!named) snprintf(rail->name, NAME_SIZE, "%.20s %.20s channel %d", chip, strrchr(folder, '/') + 1, channel);
  if (strcmp(rail->name, "NC") && rail_watts(rail, &number)) ++meter->count;
}

/* Keep only the rail that feeds all others, where there is one. */
static void keep_whole_board(Meter* meter) {
  static const char* const whole[] = {"VDD_IN", "POM_5V_IN", "5V_IN", "VIN"};
  for (int i = 0; i < meter->count; ++i)
    for (size_t j = 0; j < sizeof(whole) / sizeof(*whole); ++j)
      if (!strcasecmp(meter->rails[i].name, whole[j])) {
        meter->rails[0] = meter->rails[i];
        meter->count = 1;
        return;
      }
}

static void find_rails(Meter* meter, const char* root) {
  char all[128], folder[256], chip[NAME_SIZE], names[MOST_ENTRIES][ENTRY_SIZE];
  snprintf(all, sizeof(all), "%s/sys/class/hwmon", root);
  int entries = folder_entries(all, "hwmon", names);
  for (int i = 0; i < entries; ++i) {
    snprintf(folder, sizeof(folder), "%s/%s", all, names[i]);
    if (file_text(chip, sizeof(chip), "%s/name", folder) && !strncmp(chip, "ina", 3))
      for (int channel = 1; channel <= CHANNELS && meter->count < MOST_RAILS; ++channel)
        find_channel(meter, folder, chip, channel);
  }
  keep_whole_board(meter);
}

/* --- both --- */

static bool meter_read(Meter* meter) { return meter->kind == POWERCAP ? read_counters(meter) : read_sensors(meter); }

/* Return whether counters move, which those that some virtual machines show do not. */
static bool moves(Meter* meter) {
  for (int i = 0; i < LOOKS && meter->total_j == 0; ++i) {
    struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
    if (!read_counters(meter)) return false;
  }
  return meter->total_j > 0;
}

static void describe(Meter* meter, const char* source, const char* did) {
  int used = snprintf(meter->description, DESCRIPTION_SIZE, "%s: all that ", source);
  for (int i = 0; i < meter->count && used < DESCRIPTION_SIZE - NAME_SIZE - 40; ++i)
    used += snprintf(meter->description + used, DESCRIPTION_SIZE - (size_t)used, "%s%s", i ? " and " : "",
                     meter->rails[i].name);
  snprintf(meter->description + used, DESCRIPTION_SIZE - (size_t)used, " %s while it ran", did);
}

void meter_find(Meter* meter, const char* root) {
  memset(meter, 0, sizeof(*meter));
  find_counters(meter, root);
  if (meter->count && moves(meter)) {
    meter->kind = POWERCAP;
    describe(meter, "powercap", "used");
    return;
  }
  const char* counters = meter->count ? "the counters below /sys/class/powercap stand still" : "no powercap counters";
  meter->count = 0;
  find_rails(meter, root);
  if (meter->count) {
    meter->kind = SENSORS;
    describe(meter, "INA sensors", "drew");
  } else {
    snprintf(meter->description, DESCRIPTION_SIZE, "%s; no INA sensor below /sys/class/hwmon", counters);
  }
}

/* Run in batches until the counter says something new; returns how many runs that took, 0 where it never does. */
static long until_moved(Meter* meter, Work work, long count) {
  double last_j = meter->total_j, start = now_s();
  long done = 0;
  do {
    work.run(work.of, count);
    done += count;
    if (!meter_read(meter)) return 0;
    if (meter->total_j != last_j) return done;
  } while (now_s() - start < STUCK_S);
  return 0;
}

bool measure_energy(Meter* meter, Work work, double seconds, double* joules) {
  if (meter->kind == NO_METER) return false;
  work.run(work.of, 1);
  double start = now_s();
  work.run(work.of, 3);
  double once_s = (now_s() - start) / 3;
  long count = once_s > 0 && BATCH_S / once_s > 1 ? (long)(BATCH_S / once_s) : 1;
  meter->last_s = 0;
  if (!meter_read(meter) || !until_moved(meter, work, count)) return false;
  double first_j = meter->total_j;
  long runs = 0;
  int updates = 0, enough = meter->kind == POWERCAP ? COUNTER_UPDATES : SENSOR_UPDATES;
  start = now_s();
  while (updates < enough || now_s() - start < seconds) {
    long done = until_moved(meter, work, count);
    if (!done) return false;
    runs += done;
    ++updates;
  }
  *joules = (meter->total_j - first_j) / (double)runs;
  return true;
}

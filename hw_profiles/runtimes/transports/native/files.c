#include "files.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool first_line(char* text, size_t size, const char* path, va_list arguments) {
  char whole[1024];
  vsnprintf(whole, sizeof(whole), path, arguments);
  FILE* file = fopen(whole, "re");
  if (!file) return false;
  bool good = fgets(text, (int)size, file) != NULL;
  fclose(file);
  if (good) text[strcspn(text, "\n")] = 0;
  return good && *text;
}

bool file_text(char* text, size_t size, const char* path, ...) {
  va_list arguments;
  va_start(arguments, path);
  bool good = first_line(text, size, path, arguments);
  va_end(arguments);
  return good;
}

bool file_number(double* number, const char* path, ...) {
  char text[64], *end;
  va_list arguments;
  va_start(arguments, path);
  bool good = first_line(text, sizeof(text), path, arguments);
  va_end(arguments);
  if (good) *number = strtod(text, &end);
  return good && end != text;
}

static int by_name(const void* a, const void* b) { return strcmp(a, b); }

int folder_entries(const char* folder, const char* prefix, char names[MOST_ENTRIES][ENTRY_SIZE]) {
  DIR* opened = opendir(folder);
  int count = 0;
  if (!opened) return 0;
  for (struct dirent* entry; (entry = readdir(opened)) && count < MOST_ENTRIES;)
    if (*entry->d_name != '.' && !strncmp(entry->d_name, prefix, strlen(prefix)) && strlen(entry->d_name) < ENTRY_SIZE)
      strcpy(names[count++], entry->d_name);
  closedir(opened);
  qsort(names, (size_t)count, ENTRY_SIZE, by_name);
  return count;
}

/* Small files in which Linux says one thing each. */
#ifndef TRILOBIT_FILES_H
#define TRILOBIT_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* Read the first line of a file whose path is written like that; false where there is none. */
bool file_text(char* text, size_t size, const char* path, ...) __attribute__((format(printf, 3, 4)));
/* Read its number. */
bool file_number(double* number, const char* path, ...) __attribute__((format(printf, 2, 3)));

enum { MOST_ENTRIES = 64, ENTRY_SIZE = 128 };

/* List what a folder holds whose name begins like that, sorted; returns how many. */
int folder_entries(const char* folder, const char* prefix, char names[MOST_ENTRIES][ENTRY_SIZE]);

#endif

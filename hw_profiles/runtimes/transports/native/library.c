#include "library.h"

#include <elf.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__aarch64__)
enum { MACHINE = EM_AARCH64, RELATIVE = 1027, ADDRESS = 257, DATA_SLOT = 1025, CALL_SLOT = 1026 };
#elif defined(__x86_64__)
enum { MACHINE = EM_X86_64, RELATIVE = 8, ADDRESS = 1, DATA_SLOT = 6, CALL_SLOT = 7 };
#else
#error "libraries are loaded on aarch64 and x86-64 only"
#endif

/* What kernels report errors through; the code that they give back says that there was one. */
static void ignore_error(const char* kind, const char** parts, int32_t count) {
  (void)kind, (void)parts, (void)count;
}

#define OWN(name) {#name, (void*)name}
static const struct {
  const char* name;
  void* address;
} own[] = {
    OWN(memcpy), OWN(memmove), OWN(memset), OWN(memcmp), OWN(malloc), OWN(free), OWN(posix_memalign), OWN(abort),
    OWN(expf), OWN(exp), OWN(exp2f), OWN(logf), OWN(log2f), OWN(log), OWN(powf), OWN(pow), OWN(tanhf), OWN(tanh),
    OWN(erff), OWN(erf), OWN(sinf), OWN(cosf), OWN(sqrtf), OWN(sqrt), OWN(floorf), OWN(floor), OWN(ceilf),
    OWN(roundf), OWN(round), OWN(rintf), OWN(rint), OWN(nearbyintf), OWN(nearbyint), OWN(truncf), OWN(trunc),
    OWN(fmaxf), OWN(fminf), OWN(fmodf), OWN(fabsf), OWN(ldexpf), OWN(fmaf), OWN(llrintf), OWN(lroundf),
    {"TVMFFIErrorSetRaisedFromCStrParts", (void*)ignore_error},
};

static void* own_function(const char* name) {
  for (size_t i = 0; i < sizeof(own) / sizeof(*own); ++i)
    if (!strcmp(own[i].name, name)) return own[i].address;
  return NULL;
}

static bool read_at(int file, void* to, size_t size, uint64_t at) {
  for (char* bytes = to; size;) {
    ssize_t some = pread(file, bytes, size, (off_t)at);
    if (some <= 0) return false;
    bytes += some;
    at += (uint64_t)some;
    size -= (size_t)some;
  }
  return true;
}

/* Map one segment: code as pages of the file, which every system allows to be run; the rest as a copy, so that
 * each session has its numbers in memory of its own. */
static bool map_segment(int file, char* base, const Elf64_Phdr* segment, size_t page) {
  uint64_t start = segment->p_vaddr / page * page, lead = segment->p_vaddr - start;
  if (segment->p_flags & PF_X) {
    int rights = PROT_READ | PROT_EXEC;
    size_t size = segment->p_filesz + lead;
    if (segment->p_flags & PF_W || segment->p_offset % page != lead) return false;
    return mmap(base + start, size, rights, MAP_PRIVATE | MAP_FIXED, file, (off_t)(segment->p_offset - lead)) !=
           MAP_FAILED;
  }
  char* memory = base + segment->p_vaddr;
  if (mprotect(base + start, segment->p_memsz + lead, PROT_READ | PROT_WRITE)) return false;
  return read_at(file, memory, segment->p_filesz, segment->p_offset);
}

static const char* map_file(int file, const Elf64_Ehdr* header, const Elf64_Phdr* segments, Library* library) {
  uint64_t end = 0;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < header->e_phnum; ++i)
    if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr + segments[i].p_memsz > end)
      end = segments[i].p_vaddr + segments[i].p_memsz;
  void* memory = end ? mmap(NULL, end, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
  if (memory == MAP_FAILED) return "there is no memory for it";
  library->base = memory;
  for (int i = 0; i < header->e_phnum; ++i)
    if (segments[i].p_type == PT_LOAD && !map_segment(file, library->base, &segments[i], page))
      return "a part of it cannot be mapped";
  return NULL;
}

/* Return what a symbol stands for: the library's own, this program's, or nothing where it may be missing. */
static bool resolve(const Library* library, uint32_t index, uint64_t* value, char problem[PROBLEM_SIZE]) {
  const Elf64_Sym* symbol = (const Elf64_Sym*)library->symbols + index;
  const char* name = library->names + symbol->st_name;
  *value = 0;
  if (symbol->st_shndx != SHN_UNDEF)
    *value = (uint64_t)(uintptr_t)library->base + symbol->st_value;
  else
    *value = (uint64_t)(uintptr_t)own_function(name);
  if (*value || ELF64_ST_BIND(symbol->st_info) == STB_WEAK) return true;
  snprintf(problem, PROBLEM_SIZE, "it needs %.100s, which the agent has not", name);
  return false;
}

static bool relocate(const Library* library, const Elf64_Rela* entries, size_t count, char problem[PROBLEM_SIZE]) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t type = ELF64_R_TYPE(entries[i].r_info), index = ELF64_R_SYM(entries[i].r_info);
    uint64_t value = (uint64_t)(uintptr_t)library->base;
    if (type == ADDRESS || type == DATA_SLOT || type == CALL_SLOT) {
      if (!resolve(library, index, &value, problem)) return false;
    } else if (type != RELATIVE) {
      snprintf(problem, PROBLEM_SIZE, "relocation %u is not known", type);
      return false;
    }
    value += (uint64_t)entries[i].r_addend;
    memcpy(library->base + entries[i].r_offset, &value, sizeof(value));
  }
  return true;
}

/* Return how many symbols there are, which only a hash table says. */
static size_t count_symbols(const uint32_t* table) {
  uint32_t buckets = table[0], first = table[1], last = 0;
  const uint32_t* bucket = (const uint32_t*)((const uint64_t*)(table + 4) + table[2]);
  const uint32_t* chain = bucket + buckets;
  for (uint32_t i = 0; i < buckets; ++i)
    if (bucket[i] > last) last = bucket[i];
  if (last < first) return first;
  while (!(chain[last - first] & 1)) ++last;
  return last + 1;
}

/* Read the dynamic section, and let all addresses in the library be right. */
static const char* link_file(const Elf64_Dyn* entry, Library* library, char problem[PROBLEM_SIZE]) {
  uint64_t facts[DT_JMPREL + 1] = {0}, gnu_hash = 0;
  for (; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag > 0 && entry->d_tag <= DT_JMPREL) facts[entry->d_tag] = entry->d_un.d_val;
    if (entry->d_tag == DT_GNU_HASH) gnu_hash = entry->d_un.d_val;
  }
  if (!facts[DT_SYMTAB] || !facts[DT_STRTAB] || !(gnu_hash || facts[DT_HASH])) return "it has no table of symbols";
  library->symbols = library->base + facts[DT_SYMTAB];
  library->names = library->base + facts[DT_STRTAB];
  const uint32_t* table = (const uint32_t*)(library->base + (gnu_hash ? gnu_hash : facts[DT_HASH]));
  library->count = gnu_hash ? count_symbols(table) : table[1];
  const Elf64_Rela* data = (const Elf64_Rela*)(library->base + facts[DT_RELA]);
  const Elf64_Rela* calls = (const Elf64_Rela*)(library->base + facts[DT_JMPREL]);
  bool good = relocate(library, data, facts[DT_RELASZ] / sizeof(*data), problem) &&
              relocate(library, calls, facts[DT_PLTRELSZ] / sizeof(*calls), problem);
  return good ? NULL : problem;
}

static const char* load(int file, Library* library, char problem[PROBLEM_SIZE]) {
  Elf64_Ehdr header;
  if (!read_at(file, &header, sizeof(header), 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_DYN)
    return "it is no shared library of 64 bits";
  if (header.e_machine != MACHINE) {
    snprintf(problem, PROBLEM_SIZE, "it was linked for another processor (machine %u)", header.e_machine);
    return problem;
  }
  Elf64_Phdr segments[32];
  if (header.e_phnum > 32 || header.e_phentsize != sizeof(*segments) ||
      !read_at(file, segments, header.e_phnum * sizeof(*segments), header.e_phoff))
    return "its headers cannot be read";
  const char* reason = map_file(file, &header, segments, library);
  for (int i = 0; !reason && i < header.e_phnum; ++i)
    if (segments[i].p_type == PT_DYNAMIC)
      return link_file((const Elf64_Dyn*)(library->base + segments[i].p_vaddr), library, problem);
  return reason ? reason : "it has no dynamic section";
}

const char* library_load(const char* path, Library* library, char problem[PROBLEM_SIZE]) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return "it cannot be opened";
  const char* reason = load(file, library, problem);
  close(file);
  return reason;
}

void* library_find(const Library* library, const char* name) {
  const Elf64_Sym* symbols = library->symbols;
  for (size_t i = 1; i < library->count; ++i)
    if (symbols[i].st_shndx != SHN_UNDEF && !strcmp(library->names + symbols[i].st_name, name))
      return library->base + symbols[i].st_value;
  return NULL;
}

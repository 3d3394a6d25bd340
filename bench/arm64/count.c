// A plugin of QEMU (its API of version 1: 7.x and 8.x) that counts the instructions which an emulated program runs in
// one of its files, `name=NAME`, and writes their number to standard error at the end. bench/arm64/count.js compiles
// it.

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// The part of QEMU's plugin API that is used here. Debian has no package of its header.
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* tb);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* tb, size_t index);
void* qemu_plugin_insn_haddr(const struct qemu_plugin_insn* insn);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* tb, int op, void* counter, uint64_t amount);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*cb)(qemu_plugin_id_t, void*), void* data);

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int qemu_plugin_version = 1;

static uint64_t executed;
static char file[256];
static uintptr_t begin, end;  // of the file's code in memory, once it is there

// The program's memory is mapped into QEMU's own.
static void find(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[4096];
  uintptr_t from, to;
  while (maps && fgets(line, sizeof line, maps)) {
    if (!strstr(line, file) || sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) continue;
    if (begin == 0 || from < begin) begin = from;
    if (to > end) end = to;
  }
  if (maps) fclose(maps);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  const uintptr_t at = (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
  if (begin == 0) find();
  if (at < begin || at >= end) return;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &executed, qemu_plugin_tb_n_insns(tb));
}

static void ended(qemu_plugin_id_t id, void* data) {
  (void)id;
  (void)data;
  fprintf(stderr, "instructions: %" PRIu64 "\n", executed);
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "name=", 5) != 0 || strlen(argv[0] + 5) >= sizeof file) return 1;
  strcpy(file, argv[0] + 5);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}

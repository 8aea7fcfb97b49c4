/* Counts the AArch64 instructions that a program executes, function by function.
 *
 * A plugin for QEMU's user emulation (Debian's qemu-user 7.2, plugin API 1, whose header is
 * not packaged: what is used of it is declared below).
 *
 *   gcc -O2 -shared -fPIC -o insncount.so insncount.c
 *   qemu-aarch64 -cpu cortex-a76 -plugin ./insncount.so,out=FILE PROGRAM
 *
 * FILE gets a line for each function, "executed multiply memory name": how many instructions
 * ran in it, how many of these multiplied vectors of integers (sdot, smmla, smull, smlal), how
 * many loaded or stored. Functions without a symbol (the C library) are "?". Counts are exact
 * for a program that runs on one thread at a time. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *, enum qemu_plugin_op, void *counter, uint64_t add);
extern void qemu_plugin_register_atexit_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

enum { EXECUTED, MULTIPLY, MEMORY, COUNTS };
struct function {
    const char *name;
    uint64_t count[COUNTS];
};
/* Open addressing by name. The largest of our programs runs some thousands of functions. */
enum { MOST = 1 << 15 };
static struct function functions[MOST];
static const char *out_path;

static struct function *function(const char *name) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (uint32_t tries = 0; tries < MOST; tries++) {
        struct function *f = &functions[(hash + tries) % MOST];
        if (!f->name) f->name = name;
        if (!strcmp(f->name, name)) return f;
    }
    fprintf(stderr, "insncount: more than %d functions\n", MOST);
    exit(1);
}

/* Encodings: Arm Architecture Reference Manual DDI 0487, C4.1. */
static int multiplies(uint32_t w) {
    return (w & 0x9fe0fc00) == 0x0e809400 /* sdot, udot (vector) */
        || (w & 0x9fc0f400) == 0x0f80e000 /* sdot, udot (by element) */
        || (w & 0xdfe0f400) == 0x4e80a400 /* smmla, ummla, usmmla */
        || (w & 0x9f20fc00) == 0x0e208000 /* smlal, umlal */
        || (w & 0x9f20fc00) == 0x0e20c000; /* smull, umull */
}
static int accesses_memory(uint32_t w) { return (w & 0x0a000000) == 0x08000000; }

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
    struct function *f = function(name ? name : "?");
    uint64_t counts[COUNTS] = {n, 0, 0};
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
        counts[MULTIPLY] += multiplies(word);
        counts[MEMORY] += accesses_memory(word);
    }
    for (int c = 0; c < COUNTS; c++)
        if (counts[c])
            qemu_plugin_register_vcpu_tb_exec_inline(
                tb, QEMU_PLUGIN_INLINE_ADD_U64, &f->count[c], counts[c]);
}

static void finished(qemu_plugin_id_t id, void *unused) {
    (void)id, (void)unused;
    FILE *out = fopen(out_path, "w");
    if (!out) {
        perror(out_path);
        exit(1);
    }
    for (struct function *f = functions; f < functions + MOST; f++)
        if (f->name)
            fprintf(out, "%llu %llu %llu %s\n", (unsigned long long)f->count[EXECUTED],
                (unsigned long long)f->count[MULTIPLY], (unsigned long long)f->count[MEMORY],
                f->name);
    if (fclose(out)) {
        perror(out_path);
        exit(1);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(
    qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4)) {
        fprintf(stderr, "insncount: usage: -plugin insncount.so,out=FILE\n");
        return -1;
    }
    out_path = strdup(argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}

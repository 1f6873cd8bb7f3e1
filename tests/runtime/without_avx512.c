/* Preloaded into a process, this hides AVX-512 and AMX from it: libraries then take the way of an AVX2 processor.
 *
 * Linux lets a process trap its own CPUID instructions where the processor can fault on them (Intel from Ivy
 * Bridge on, AMD from Zen 5 on). The handler asks the processor, clears the bits, and steps over the instruction.
 * A processor or kernel that cannot do it ends the process with status 77.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define CANNOT 77

static struct sigaction before;

static long let_cpuid_run(long yes) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, yes); }

static uint32_t bits(const int *positions, int count) {
    uint32_t mask = 0;
    for (int i = 0; i < count; i++) mask |= 1u << positions[i];
    return mask;
}

#define BITS(...) bits((const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) { /* a fault of another kind: as if we were not here */
        sigaction(SIGSEGV, &before, NULL);
        return;
    }
    uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    let_cpuid_run(1);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(part));
    let_cpuid_run(0);
    if (leaf == 7 && part == 0) {
        b &= ~BITS(16, 17, 21, 26, 27, 28, 30, 31); /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
        c &= ~BITS(1, 6, 11, 12, 14);               /* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        d &= ~BITS(2, 3, 8, 22, 23, 24, 25);        /* 4VNNIW, 4FMAPS, VP2INTERSECT, AMX BF16, FP16, TILE, INT8 */
    }
    if (leaf == 7 && part == 1) a &= ~BITS(5, 21); /* AVX512 BF16, AMX FP16 */
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before);
    if (let_cpuid_run(0)) _exit(CANNOT);
}

// Operands of 16 bits on the plain cores, each made an f32 first: for GPUs without tensor cores, and to compare with.
#include "simt.cuh"

SIMT(bf16, BF16, 8)
SIMT(fp16, FP16, 8)

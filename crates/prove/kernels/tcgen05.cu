// What all of the family of compute capability 10.0 have.
#include "tcgen05.cuh"

TCGEN05_KERNELS(bf16, BF16)
TCGEN05_KERNELS(fp16, FP16)
TCGEN05_KERNELS(tf32, TF32)
TCGEN05_KERNELS(fp8, FP8)

// Turing: no `cp.async` and no bf16.
#define LDMATRIX
#define MMA_K8
#define ROW_BYTES 64
#include "mma.cuh"

MMA(fp16, FP16, Wide<FP16>)
MMA(int8, INT8, Wide<INT8>)

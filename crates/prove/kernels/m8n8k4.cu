// Volta: half precision alone, by quad pairs.
#define MMA_VOLTA
#define ROW_BYTES 64
#include "mma.cuh"

MMA(fp16, FP16, QuadPairs)

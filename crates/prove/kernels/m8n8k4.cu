// Volta: half precision alone, by quad pairs.
#define MMA_VOLTA
#include "mma.cuh"

MMA(fp16, FP16, QuadPairs)

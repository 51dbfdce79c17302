// f64 of Hopper, whose larger instruction is twice as fast there.
#define CP_ASYNC
#define MMA_DOUBLE
#define MMA_DOUBLE_K8
#define ROW_BYTES 128
#include "mma.cuh"

MMA(fp64, FP64, Double)

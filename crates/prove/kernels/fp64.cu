// f64 of Ampere and of all that follow.
#define CP_ASYNC
#define MMA_DOUBLE
#define ROW_BYTES 128
#include "mma.cuh"

MMA(fp64, FP64, Double)

// FP8 of Ada, and of Blackwell's smaller chips. Hopper takes it too, and makes it of half precision: see `wgmma.cu`.
#define LDMATRIX
#define CP_ASYNC
#define MMA_FP8
#define ROW_BYTES 128
#include "mma.cuh"

MMA(fp8, FP8, Wide<FP8>)

// Ampere and all that follow: bf16, half, TF32 and signed bytes.
#define LDMATRIX
#define CP_ASYNC
#define MMA_K16
#define ROW_BYTES 128
#include "mma.cuh"

MMA(bf16, BF16, Wide<BF16>)
MMA(fp16, FP16, Wide<FP16>)
MMA(tf32, TF32, Wide<TF32>)
MMA(int8, INT8, Wide<INT8>)

// Four signed bytes in one instruction, from compute capability 6.1 on.
#define DP4A
#include "simt.cuh"

SIMT(int8, INT8, 8)

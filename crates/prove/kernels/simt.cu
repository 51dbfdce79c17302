// The plain cores of every GPU since compute capability 5.0.
#include "simt.cuh"

SIMT(fp32, FP32, 8)
SIMT(fp64, FP64, 4)
SIMT(int8, INT8, 8)

/* llama.cpp's q4_0, byte for byte, four times as fast as its plain quantizer: 32 numbers a block share the scale
 * largest / -8, the largest by size with its sign, and each takes 4 bits. Compiled when first used (quantize.py), and
 * without contraction to fused multiply-add, which rounds once where llama.cpp rounds twice.
 */
#include <stdint.h>

enum { BLOCK = 32, BYTES = 18 };

/* x [blocks * 32] -> scales [blocks], and the 16 bytes of numbers behind the 2 of the scale in each of out [blocks][18]. */
void pack_q4_0(const float *x, float *scales, uint8_t *out, int64_t blocks) {
    for (int64_t b = 0; b < blocks; b++, x += BLOCK, out += BYTES) {
        float high = 0, low = 0;
        for (int i = 0; i < BLOCK; i++) {
            high = x[i] > high ? x[i] : high;
            low = x[i] < low ? x[i] : low;
        }
        float largest = high > -low ? high : low;
        if (high == -low)  /* both signs: the first one counts */
            for (int i = BLOCK - 1; i >= 0; i--) largest = x[i] == high || x[i] == low ? x[i] : largest;
        float scale = largest / -8, inverse = scale ? 1.0f / scale : 0.0f;
        scales[b] = scale;
        uint8_t q[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            int level = (int)(x[i] * inverse + 8.5f);
            q[i] = level > 15 ? 15 : level;
        }
        for (int i = 0; i < BLOCK / 2; i++) out[2 + i] = q[i] | q[i + BLOCK / 2] << 4;
    }
}

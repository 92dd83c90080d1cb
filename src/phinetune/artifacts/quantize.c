/* The types of .gguf that weights are packed in most, in the bytes that ggml's plain quantizers write, many times as
 * fast: those go through a block number by number, and what one number adds to a sum waits for the one before. Here
 * eight runs of a block stand side by side, one in each lane, and every lane adds its numbers up in the same order.
 *
 * Compiled when first used (quantize.py), without contraction to fused multiply-add, which rounds once where ggml rounds
 * twice. Weights are finite. Each function takes x [blocks, numbers of a block] and fills out [blocks, bytes of one].
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, SIMPLE = 32, SUPER = 256 };
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

static const float NOTHING = 1e-15f; /* what is smaller is zero to ggml */

static inline Ints choose(Ints where, Ints a, Ints b) { return (where & a) | (~where & b); }
static inline Floats pick(Ints where, Floats a, Floats b) { return (Floats)choose(where, (Ints)a, (Ints)b); }
static inline Floats size_of(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
static inline Floats floats(Ints x) { return __builtin_convertvector(x, Floats); }

/* To the nearest whole number, halves to the even one, of less than 2^22: the low bits of a float of that size. */
static inline Ints nearest(Floats x) { return ((Ints)(x + 12582912.0f) & 0x7fffff) - 0x400000; }

static inline Ints clamp(Ints x, int32_t low, int32_t high) {
    x = choose(x < low, (Ints){0} + low, x);
    return choose(x > high, (Ints){0} + high, x);
}

/* IEEE half precision, to the nearest, halves to even; _Float16 is missing from compilers that are still in use. */
static uint16_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size >= 0x47800000) return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000) { /* subnormal: 0.5 has its last bit where theirs is */
        float shifted;
        memcpy(&shifted, &size, sizeof shifted);
        shifted += 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}

static float from_half(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float x;
    memcpy(&x, &bits, sizeof x);
    x *= 0x1p112f;
    return half & 0x8000 ? -x : x;
}

static inline void put_half(uint8_t *out, float x) {
    uint16_t half = to_half(x);
    memcpy(out, &half, sizeof half);
}

/* Eight runs of `length` numbers, one in each lane. */
static inline void turn(const float *x, Floats *lanes, int length) {
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < length; i++) lanes[i][lane] = x[lane * length + i];
}

static inline void turn_back(const Ints *lanes, uint8_t *levels, int length) {
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < length; i++) levels[lane * length + i] = (uint8_t)lanes[i][lane];
}

/* q4_0: 32 numbers share the scale largest / -8, the largest by size with its sign, and each takes 4 bits. */
static inline Ints level_q4_0(const float *x, float inverse) {
    Floats some;
    memcpy(&some, x, sizeof some);
    Ints level = __builtin_convertvector(some * inverse + 8.5f, Ints);
    return choose(level > 15, (Ints){0} + 15, level);
}

void pack_q4_0(const float *x, uint8_t *out, int64_t blocks) {
    enum { HALF = SIMPLE / 2 };
    for (int64_t b = 0; b < blocks; b++, x += SIMPLE, out += 2 + HALF) {
        Floats highs = {0}, lows = {0};
        float high = 0, low = 0;
        for (int i = 0; i < SIMPLE; i += LANES) {
            Floats some;
            memcpy(&some, x + i, sizeof some);
            highs = pick(some > highs, some, highs);
            lows = pick(some < lows, some, lows);
        }
        for (int lane = 0; lane < LANES; lane++) {
            high = highs[lane] > high ? highs[lane] : high;
            low = lows[lane] < low ? lows[lane] : low;
        }
        float largest = high > -low ? high : low;
        if (high > 0 && high == -low) /* both signs: the first one counts */
            for (int i = SIMPLE - 1; i >= 0; i--) largest = x[i] == high || x[i] == low ? x[i] : largest;
        float scale = largest / -8, inverse = scale ? 1.0f / scale : 0.0f;
        put_half(out, scale);
        for (int i = 0; i < HALF; i += LANES) {
            Ints first = level_q4_0(x + i, inverse), second = level_q4_0(x + i + HALF, inverse);
            Bytes both = __builtin_convertvector(first | second << 4, Bytes);
            memcpy(out + 2 + i, &both, sizeof both);
        }
    }
}

/* q6_K: 16 runs of 16 numbers, each with a scale of 8 bits over one of the whole block; 6 bits a number. The scale of a
 * run is the best of 19 by least squares, a number weighing as much as its square.
 */
enum { RUN = 16, RUNS = SUPER / RUN };

typedef struct {
    Floats scale, inverse; /* x is about scale * level, and level = nearest(x * inverse) */
    Ints nothing;          /* runs of zeros */
} Fit6;

static Fit6 fit_q6(const Floats x[RUN]) {
    Floats size = {0}, largest = {0}, best = {0};
    for (int i = 0; i < RUN; i++) {
        Ints larger = size_of(x[i]) > size;
        largest = pick(larger, x[i], largest);
        size = pick(larger, size_of(x[i]), size);
    }
    Fit6 fit = {.nothing = size < NOTHING};
    largest = pick(fit.nothing, (Floats){0} + 1, largest);
    for (int tried = 0; tried < 19; tried++) {
        int step = tried == 0 ? 0 : tried <= 9 ? tried - 10 : tried - 9; /* 0 -9 .. -1 1 .. 9 */
        Floats inverse = -(32 + 0.1f * (float)step) / largest, product = {0}, square = {0};
        for (int i = 0; i < RUN; i++) {
            Floats weight = x[i] * x[i], level = floats(clamp(nearest(inverse * x[i]), -32, 31));
            product += weight * x[i] * level;
            square += weight * level * level;
        }
        Ints better = square > 0;
        if (tried) better &= product * product > best * square;
        Floats scale = product / pick(better, square, (Floats){0} + 1);
        fit.scale = pick(better, scale, fit.scale);
        best = pick(better, scale * product, best);
        fit.inverse = tried ? pick(better, inverse, fit.inverse) : inverse;
    }
    fit.scale = pick(fit.nothing, (Floats){0}, fit.scale);
    return fit;
}

void pack_q6_k(const float *x, uint8_t *out, int64_t blocks) {
    enum { LOW = SUPER / 2, HIGH = SUPER / 4, BYTES = LOW + HIGH + RUNS + 2 };
    for (int64_t b = 0; b < blocks; b++, x += SUPER, out += BYTES) {
        Floats numbers[2][RUN];
        Fit6 fits[2];
        float largest = 0;
        for (int half = 0; half < 2; half++) {
            turn(x + half * SUPER / 2, numbers[half], RUN);
            fits[half] = fit_q6(numbers[half]);
            for (int lane = 0; lane < LANES; lane++) {
                float scale = fits[half].scale[lane];
                largest = fabsf(scale) > fabsf(largest) ? scale : largest;
            }
        }
        if (fabsf(largest) < NOTHING) {
            memset(out, 0, BYTES);
            continue;
        }
        uint8_t levels[SUPER], *scales = out + LOW + HIGH;
        float inverse = -128.0f / largest;
        put_half(scales + RUNS, 1 / inverse);
        float whole = from_half(to_half(1 / inverse));
        for (int half = 0; half < 2; half++) {
            Fit6 fit = fits[half];
            Ints scaled = clamp(nearest(inverse * fit.scale), -128, 127), level[RUN];
            Floats scale = whole * floats(scaled);
            Ints lost = scale == 0; /* rounded to nothing: the levels stay those of the fit */
            Floats divisor = pick(lost, (Floats){0} + 1, scale);
            for (int lane = 0; lane < LANES; lane++) scales[half * LANES + lane] = (uint8_t)scaled[lane];
            for (int i = 0; i < RUN; i++) {
                Floats number = numbers[half][i];
                Floats exact = pick(lost, number * fit.inverse, number / divisor);
                level[i] = ~fit.nothing & (clamp(nearest(exact), -32, 31) + 32);
            }
            turn_back(level, levels + half * SUPER / 2, RUN);
        }
        for (int part = 0; part < 2; part++) { /* 128 numbers in 64 bytes of low bits and 32 of high ones */
            const uint8_t *l = levels + part * 128;
            uint8_t *low = out + part * 64, *high = out + LOW + part * 32;
            for (int i = 0; i < 32; i++) {
                low[i] = (uint8_t)((l[i] & 15) | (l[i + 64] & 15) << 4);
                low[i + 32] = (uint8_t)((l[i + 32] & 15) | (l[i + 96] & 15) << 4);
                high[i] = (uint8_t)(l[i] >> 4 | l[i + 32] >> 4 << 2 | l[i + 64] >> 4 << 4 | l[i + 96] >> 4 << 6);
            }
        }
    }
}

/* q4_K and q5_K: 8 runs of 32 numbers, each with a scale and a least number of 6 bits, over two halves of the whole block; 4
 * or 5 bits a number. Both are fitted by least squares to the levels of some 20 tries, where a number weighs as much as
 * its size and the run's root mean square together.
 */
typedef struct {
    Floats scale, least;   /* x is about scale * level + least */
    Floats inverse, start; /* level = nearest((x - start) * inverse) */
    Ints flat;             /* runs of one number */
} Fit45;

static inline __attribute__((always_inline)) Fit45 fit_q45(
    const Floats x[SIMPLE], const int highest, const float first, const int tries) {
    Floats weight[SIMPLE], mean = {0}, least = x[0], most = x[0], weights = {0}, sum = {0}, error = {0};
    for (int i = 0; i < SIMPLE; i++) mean += x[i] * x[i];
    mean /= SIMPLE;
    for (int lane = 0; lane < LANES; lane++) mean[lane] = sqrtf(mean[lane]);
    for (int i = 0; i < SIMPLE; i++) {
        weight[i] = mean + size_of(x[i]);
        weights += weight[i];
        sum += weight[i] * x[i];
        least = pick(x[i] < least, x[i], least);
        most = pick(x[i] > most, x[i], most);
    }
    least = pick(least > 0, (Floats){0}, least);
    Fit45 fit = {.least = least, .start = least, .flat = most == least};
    most = pick(fit.flat, least + 1, most);
    fit.inverse = (float)highest / (most - least);
    fit.scale = 1 / fit.inverse;
    for (int i = 0; i < SIMPLE; i++) {
        Floats level = floats(clamp(nearest(fit.inverse * (x[i] - least)), 0, highest));
        Floats off = fit.scale * level + least - x[i];
        error += weight[i] * (off * off);
    }
    for (int step = 0; step <= tries; step++) {
        Floats level[SIMPLE], levels = {0}, squares = {0}, products = {0}, now = {0};
        Floats start = fit.least, inverse = (first + 0.1f * (float)step + (float)highest) / (most - start);
        for (int i = 0; i < SIMPLE; i++) {
            level[i] = floats(clamp(nearest(inverse * (x[i] - start)), 0, highest));
            Floats share = weight[i] * level[i];
            levels += share;
            squares += share * level[i];
            products += share * x[i];
        }
        Floats spread = weights * squares - levels * levels;
        Ints better = (spread > 0) & ~fit.flat;
        Floats over = pick(better, spread, (Floats){0} + 1);
        Floats scale = (weights * products - sum * levels) / over, foot = (squares * sum - levels * products) / over;
        scale = pick(foot > 0, products / pick(better, squares, (Floats){0} + 1), scale);
        foot = pick(foot > 0, (Floats){0}, foot);
        for (int i = 0; i < SIMPLE; i++) {
            Floats off = scale * level[i] + foot - x[i];
            now += weight[i] * (off * off);
        }
        better &= now < error;
        error = pick(better, now, error);
        fit.scale = pick(better, scale, fit.scale);
        fit.least = pick(better, foot, fit.least);
        fit.inverse = pick(better, inverse, fit.inverse);
        fit.start = pick(better, start, fit.start);
    }
    fit.scale = pick(fit.flat, (Floats){0}, fit.scale);
    return fit;
}

/* The 4 + 12 bytes of the two halves and of each run's 6 + 6 bits, and the levels of the numbers. */
static inline __attribute__((always_inline)) void level_q45(
    const float *x, uint8_t *out, uint8_t levels[SUPER], const int highest, const float first, const int tries) {
    Floats numbers[SIMPLE];
    turn(x, numbers, SIMPLE);
    Fit45 fit = fit_q45(numbers, highest, first, tries);
    float widest = 0, deepest = 0;
    for (int lane = 0; lane < LANES; lane++) {
        widest = fit.scale[lane] > widest ? fit.scale[lane] : widest;
        deepest = -fit.least[lane] > deepest ? -fit.least[lane] : deepest;
    }
    put_half(out, widest / 63.0f);
    put_half(out + 2, deepest / 63.0f);
    Ints wide = nearest((widest > 0 ? 63.0f / widest : 0) * fit.scale) & 255; /* a byte, as ggml has it */
    Ints deep = nearest((deepest > 0 ? 63.0f / deepest : 0) * -fit.least) & 255;
    wide = clamp(wide, 0, 63), deep = clamp(deep, 0, 63);
    uint8_t *bits = out + 4;
    for (int lane = 0; lane < 4; lane++) {
        int above = lane + 4;
        bits[lane] = (uint8_t)(wide[lane] | wide[above] >> 4 << 6);
        bits[above] = (uint8_t)(deep[lane] | deep[above] >> 4 << 6);
        bits[lane + 8] = (uint8_t)((wide[above] & 15) | (deep[above] & 15) << 4);
    }
    Floats scale = from_half(to_half(widest / 63.0f)) * floats(wide);
    Floats depth = from_half(to_half(deepest / 63.0f)) * floats(deep);
    Ints lost = scale == 0; /* rounded to nothing: the levels stay those of the fit */
    Floats divisor = pick(lost, (Floats){0} + 1, scale);
    Ints level[SIMPLE];
    for (int i = 0; i < SIMPLE; i++) {
        Floats exact = pick(lost, fit.inverse * (numbers[i] - fit.start), (numbers[i] + depth) / divisor);
        level[i] = ~(lost & fit.flat) & clamp(nearest(exact), 0, highest);
    }
    turn_back(level, levels, SIMPLE);
}

void pack_q4_k(const float *x, uint8_t *out, int64_t blocks) {
    enum { BYTES = 4 + 12 + SUPER / 2 };
    for (int64_t b = 0; b < blocks; b++, x += SUPER, out += BYTES) {
        uint8_t levels[SUPER];
        level_q45(x, out, levels, 15, -1.0f, 20);
        for (int i = 0; i < SUPER / 2; i++) {
            const uint8_t *l = levels + i / 32 * 64 + i % 32;
            out[16 + i] = (uint8_t)(l[0] | l[32] << 4);
        }
    }
}

void pack_q5_k(const float *x, uint8_t *out, int64_t blocks) {
    enum { HIGH = SUPER / 8, BYTES = 4 + 12 + HIGH + SUPER / 2 };
    for (int64_t b = 0; b < blocks; b++, x += SUPER, out += BYTES) {
        uint8_t levels[SUPER], *high = out + 16, *low = high + HIGH;
        level_q45(x, out, levels, 31, -0.5f, 15);
        memset(high, 0, HIGH);
        for (int i = 0; i < SUPER / 2; i++) {
            const uint8_t *l = levels + i / 32 * 64 + i % 32;
            low[i] = (uint8_t)((l[0] & 15) | (l[32] & 15) << 4);
            high[i % 32] |= (uint8_t)((l[0] >> 4 | l[32] >> 4 << 1) << i / 32 * 2);
        }
    }
}

/* Causal attention within each document of a row, rotation included, for bf16 on a CPU. Arithmetic is in fp32.
 *
 * One task is a document and a key head with its group of query heads. Queries go through in bands of BAND rows, so that
 * the scores of a band (BAND x the keys up to its end) stay in the cache and the half that causality forbids is never
 * computed; the way back computes them again from the logarithm of every row's sum, as in FlashAttention (Dao, 2023).
 *
 *     scores = Q Kt         O  = P V           dV += Pt dO        dP = dO Vt
 *     dS = P (dP - sum P dP)                    dQ = dS K         dK += dSt Q
 *
 * Rows of a band beyond its queries hold anything: nothing is stored or summed from them. The plain reference is
 * documents.py. A row of few documents and key heads keeps as few threads busy. Every task writes results of its own, and sums in one order, so that the result
 * does not depend on the number of threads.
 */
#include <math.h>
#include <stdlib.h>

#include "numbers.h"

#ifdef __AVX512F__
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define ROWS 4   /* of a tile of the product; its columns are up to 4 vectors: the sums fill half of 32 registers */
#define BAND 32
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));

static inline idx up_to(idx n, idx step) { return (n + step - 1) / step * step; }

/* c [ROWS, vectors LANES] = or += sum over k < depth of a[r a_row + k a_step] b[k b_row + column]. */
INLINE void tile(const float *a, idx a_row, idx a_step, const float *b, idx b_row, float *c, idx c_row, idx depth,
                 int add, const int vectors) {
    vec sum[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) sum[r][n] = add ? *(const vec *)(c + r * c_row + n * LANES) : (vec){0};
    for (idx k = 0; k < depth; k++) {
        vec of_b[4];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) of_b[n] = *(const vec *)(b + k * b_row + n * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            float x = a[r * a_row + k * a_step];
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++) sum[r][n] += x * of_b[n];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) *(vec *)(c + r * c_row + n * LANES) = sum[r][n];
}

/* The product of whole matrices; rows a multiple of ROWS, columns of LANES, and b and c aligned to vectors. */
static void product(const float *a, idx a_row, idx a_step, const float *b, idx b_row, float *c, idx c_row, idx rows,
                    idx columns, idx depth, int add) {
    for (idx j = 0; j < columns; j += 4 * LANES) {
        idx left = (columns - j) / LANES;
        for (idx i = 0; i < rows; i += ROWS) {
            const float *ai = a + i * a_row, *bj = b + j;
            float *cij = c + i * c_row + j;
            if (left >= 4) tile(ai, a_row, a_step, bj, b_row, cij, c_row, depth, add, 4);
            else if (left == 3) tile(ai, a_row, a_step, bj, b_row, cij, c_row, depth, add, 3);
            else if (left == 2) tile(ai, a_row, a_step, bj, b_row, cij, c_row, depth, add, 2);
            else tile(ai, a_row, a_step, bj, b_row, cij, c_row, depth, add, 1);
        }
    }
}

/* What all tasks share. A row of q, gradients and answers has heads * d numbers, one of k and v kv_heads * d. */
typedef struct {
    const bf16 *q, *k, *v;
    const float *cos, *sin; /* [tokens, half] */
    float scaling;
    idx heads, kv_heads, d, half;
} Row;

/* Memory of one thread, for the longest document: the widths are padded to whole vectors with zeros. */
typedef struct {
    float *k, *v;                /* [length, wide_d]: keys turned */
    float *kt, *vt;              /* [d, wide_length] */
    float *gk, *gv;              /* [length, wide_d] */
    float *scores, *g_scores;    /* [BAND, wide_length] */
    float *q, *g, *out;          /* [BAND, wide_d]: queries turned and scaled, the answers' gradients, a result */
    void *all;
} Scratch;

static int allocate(Scratch *s, idx wide_d, idx wide_length) {
    idx heads = wide_length * wide_d, bands = BAND * wide_length, band = BAND * wide_d;
    idx sizes[] = {heads, heads, heads, heads, heads, heads, bands, bands, band, band, band}, total = 0;
    float **parts[] = {&s->k, &s->v, &s->kt, &s->vt, &s->gk, &s->gv, &s->scores, &s->g_scores, &s->q, &s->g, &s->out};
    for (int i = 0; i < 11; i++) total += sizes[i];
    if (posix_memalign(&s->all, 64, total * sizeof(float))) return 0;
    float *at = s->all;
    for (int i = 0; i < 11; at += sizes[i++]) *parts[i] = at;
    return 1;
}

/* Head `head` of a row's token as fp32, padded with zeros. */
static inline void widen(const bf16 *row, idx token, idx heads, idx head, idx d, idx wide_d, float *to) {
    const bf16 *from = row + (token * heads + head) * d;
#pragma omp simd
    for (idx i = 0; i < d; i++) to[i] = wide(from[i]);
    for (idx i = d; i < wide_d; i++) to[i] = 0;
}

/* Turned in place by the token's angles, halves paired; with `sign` -1 turned back. */
static inline void rotate(const Row *row, idx token, float sign, float *head) {
    const float *cos = row->cos + token * row->half, *sin = row->sin + token * row->half;
    idx half = row->half;
#pragma omp simd
    for (idx i = 0; i < half; i++) {
        float a = head[i], b = head[half + i], c = cos[i], s = sign * sin[i];
        head[i] = a * c - b * s;
        head[half + i] = b * c + a * s;
    }
}

static inline void transpose(const float *from, idx rows, idx wide_rows, idx columns, idx from_row, float *to) {
    for (idx j = 0; j < columns; j++) {
        for (idx i = 0; i < rows; i++) to[j * wide_rows + i] = from[i * from_row + j];
        for (idx i = rows; i < wide_rows; i++) to[j * wide_rows + i] = 0;
    }
}

static void read_keys(const Row *row, Scratch *s, idx start, idx length, idx head, idx wide_d, idx wide_length) {
    for (idx i = 0; i < length; i++) {
        widen(row->k, start + i, row->kv_heads, head, row->d, wide_d, s->k + i * wide_d);
        rotate(row, start + i, 1, s->k + i * wide_d);
        widen(row->v, start + i, row->kv_heads, head, row->d, wide_d, s->v + i * wide_d);
    }
    transpose(s->k, length, wide_length, row->d, wide_d, s->kt);
}

static void read_queries(const Row *row, Scratch *s, idx first, idx count, idx head, idx wide_d) {
    for (idx i = 0; i < count; i++) {
        float *to = s->q + i * wide_d;
        widen(row->q, first + i, row->heads, head, row->d, wide_d, to);
        rotate(row, first + i, 1, to);
#pragma omp simd
        for (idx j = 0; j < wide_d; j++) to[j] *= row->scaling;
    }
}

/* Scores become probabilities of the keys up to each query; the others become 0. */
static void softmax(float *scores, idx wide_length, idx first, idx count, idx columns, float *log_sums, idx heads) {
    for (idx r = 0; r < count; r++) {
        float *row = scores + r * wide_length, highest = -INFINITY, total = 0;
        idx seen = first + r + 1;
#pragma omp simd reduction(max : highest)
        for (idx j = 0; j < seen; j++) highest = row[j] > highest ? row[j] : highest;
#pragma omp simd reduction(+ : total)
        for (idx j = 0; j < seen; j++) total += row[j] = fast_exp(row[j] - highest);
        float inverse = 1.0f / total;
#pragma omp simd
        for (idx j = 0; j < seen; j++) row[j] *= inverse;
        for (idx j = seen; j < columns; j++) row[j] = 0;
        log_sums[r * heads] = highest + logf(total);
    }
}

/* The same from the logarithms of the sums. */
static void softmax_again(float *scores, idx wide_length, idx first, idx count, idx columns, const float *log_sums,
                          idx heads) {
    for (idx r = 0; r < count; r++) {
        float *row = scores + r * wide_length, log_sum = log_sums[r * heads];
        idx seen = first + r + 1;
#pragma omp simd
        for (idx j = 0; j < seen; j++) row[j] = fast_exp(row[j] - log_sum);
        for (idx j = seen; j < columns; j++) row[j] = 0;
    }
}

/* g = p (g - sum p g), row by row. */
static void softmax_back(const float *probability, float *g, idx wide_length, idx rows, idx columns) {
    for (idx r = 0; r < rows; r++) {
        const float *p = probability + r * wide_length;
        float *row = g + r * wide_length, along = 0;
#pragma omp simd reduction(+ : along)
        for (idx j = 0; j < columns; j++) along += p[j] * row[j];
#pragma omp simd
        for (idx j = 0; j < columns; j++) row[j] = p[j] * (row[j] - along);
    }
}

static inline void put(const float *from, bf16 *row, idx token, idx heads, idx head, idx d) {
    bf16 *to = row + (token * heads + head) * d;
#pragma omp simd
    for (idx i = 0; i < d; i++) to[i] = narrow(from[i]);
}

static idx longest_of(const idx *lengths, idx documents) {
    idx longest = 0;
    for (idx i = 0; i < documents; i++) longest = lengths[i] > longest ? lengths[i] : longest;
    return longest;
}

/* answers [tokens, heads d]; log_sums [tokens, heads], what the way back needs. 0 when memory ran out. */
int attend(const bf16 *q, const bf16 *k, const bf16 *v, const float *cos, const float *sin, float scaling, idx heads,
           idx kv_heads, idx d, idx half, const idx *starts, const idx *lengths, idx documents, bf16 *answers,
           float *log_sums) {
    Row row = {q, k, v, cos, sin, scaling, heads, kv_heads, d, half};
    idx wide_d = up_to(d, LANES), most = up_to(longest_of(lengths, documents), LANES), group = heads / kv_heads;
    int failed = 0;
#pragma omp parallel
    {
        Scratch s;
        int has = allocate(&s, wide_d, most);
        if (!has) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
#pragma omp for schedule(dynamic)
        for (idx task = 0; task < documents * kv_heads; task++) {
            if (!has) continue;
            idx document = task / kv_heads, kv_head = task % kv_heads;
            idx start = starts[document], length = lengths[document], wide_length = up_to(length, LANES);
            read_keys(&row, &s, start, length, kv_head, wide_d, wide_length);
            for (idx head = kv_head * group; head < (kv_head + 1) * group; head++)
                for (idx first = 0; first < length; first += BAND) {
                    idx count = length - first < BAND ? length - first : BAND, rows = up_to(count, ROWS);
                    idx seen = first + count, columns = up_to(seen, LANES), token = start + first;
                    read_queries(&row, &s, token, count, head, wide_d);
                    product(s.q, wide_d, 1, s.kt, wide_length, s.scores, wide_length, rows, columns, d, 0);
                    softmax(s.scores, wide_length, first, count, columns, log_sums + token * heads + head, heads);
                    product(s.scores, wide_length, 1, s.v, wide_d, s.out, wide_d, rows, wide_d, seen, 0);
                    for (idx i = 0; i < count; i++) put(s.out + i * wide_d, answers, token + i, heads, head, d);
                }
        }
        if (has) free(s.all);
    }
    return !failed;
}

/* From the answers' gradients g [tokens, heads d] to those of q, k and v, in the same shapes. 0 when memory ran out. */
int attend_backward(const bf16 *g, const bf16 *q, const bf16 *k, const bf16 *v, const float *cos, const float *sin,
                    float scaling, idx heads, idx kv_heads, idx d, idx half, const idx *starts, const idx *lengths,
                    idx documents, const float *log_sums, bf16 *gq, bf16 *gk, bf16 *gv) {
    Row row = {q, k, v, cos, sin, scaling, heads, kv_heads, d, half};
    idx wide_d = up_to(d, LANES), most = up_to(longest_of(lengths, documents), LANES), group = heads / kv_heads;
    int failed = 0;
#pragma omp parallel
    {
        Scratch s;
        int has = allocate(&s, wide_d, most);
        if (!has) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
#pragma omp for schedule(dynamic)
        for (idx task = 0; task < documents * kv_heads; task++) {
            if (!has) continue;
            idx document = task / kv_heads, kv_head = task % kv_heads;
            idx start = starts[document], length = lengths[document], wide_length = up_to(length, LANES);
            read_keys(&row, &s, start, length, kv_head, wide_d, wide_length);
            transpose(s.v, length, wide_length, d, wide_d, s.vt);
            memset(s.gk, 0, wide_length * wide_d * sizeof(float));
            memset(s.gv, 0, wide_length * wide_d * sizeof(float));
            for (idx head = kv_head * group; head < (kv_head + 1) * group; head++)
                for (idx first = 0; first < length; first += BAND) {
                    idx count = length - first < BAND ? length - first : BAND, rows = up_to(count, ROWS);
                    idx seen = first + count, columns = up_to(seen, LANES), token = start + first;
                    read_queries(&row, &s, token, count, head, wide_d);
                    for (idx i = 0; i < count; i++) widen(g, token + i, heads, head, d, wide_d, s.g + i * wide_d);
                    product(s.q, wide_d, 1, s.kt, wide_length, s.scores, wide_length, rows, columns, d, 0);
                    softmax_again(s.scores, wide_length, first, count, columns, log_sums + token * heads + head, heads);
                    product(s.scores, 1, wide_length, s.g, wide_d, s.gv, wide_d, columns, wide_d, count, 1);
                    product(s.g, wide_d, 1, s.vt, wide_length, s.g_scores, wide_length, rows, columns, d, 0);
                    softmax_back(s.scores, s.g_scores, wide_length, count, columns);
                    product(s.g_scores, wide_length, 1, s.k, wide_d, s.out, wide_d, rows, wide_d, seen, 0);
                    product(s.g_scores, 1, wide_length, s.q, wide_d, s.gk, wide_d, columns, wide_d, count, 1);
                    for (idx i = 0; i < count; i++) {
                        float *out = s.out + i * wide_d;
                        for (idx j = 0; j < d; j++) out[j] *= scaling;
                        rotate(&row, token + i, -1, out);
                        put(out, gq, token + i, heads, head, d);
                    }
                }
            for (idx i = 0; i < length; i++) {
                rotate(&row, start + i, -1, s.gk + i * wide_d);
                put(s.gk + i * wide_d, gk, start + i, kv_heads, kv_head, d);
                put(s.gv + i * wide_d, gv, start + i, kv_heads, kv_head, d);
            }
        }
        if (has) free(s.all);
    }
    return !failed;
}

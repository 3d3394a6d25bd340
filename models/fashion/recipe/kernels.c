/* The element-wise half of a training step. PyTorch 1.13 on a CPU spends more time in these small operations than in
 * the matrix products between them, so each is one pass here: bfloat16 or float32 in memory, float32 inside. fast.py
 * compiles this file with -O3 -ffast-math -march=native and calls it through ctypes. Rows are independent; no threads. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef FLOAT32
typedef float element;

static inline float wide(element f) { return f; }

static inline element narrow(float f) { return f; }
#else
typedef uint16_t element;

static inline float wide(element b) {
  uint32_t u = (uint32_t)b << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline element narrow(float f) { /* round to nearest even; no NaN reaches this */
  uint32_t u;
  memcpy(&u, &f, 4);
  return (element)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
#endif

/* x [rows, dim] += add (when there is one); y = x / rms(x); inv [rows] = 1 / rms(x) */
void norm_forward(float *restrict x, const element *restrict add, element *restrict y, float *restrict inv, long rows, long dim) {
  for (long r = 0; r < rows; r++, x += dim, y += dim) {
    float sum = 0;
    if (add) {
      for (long i = 0; i < dim; i++) x[i] += wide(add[i]);
      add += dim;
    }
    for (long i = 0; i < dim; i++) sum += x[i] * x[i];
    float s = 1 / sqrtf(sum / dim + 1e-5f);
    inv[r] = s;
    for (long i = 0; i < dim; i++) y[i] = narrow(x[i] * s);
  }
}

/* dx [rows, dim] += inv * (g - y * mean(g * y)); low = dx as an element, the next matrix product's operand */
void norm_backward(const element *restrict g, const element *restrict y, const float *restrict inv, float *restrict dx, element *restrict low,
                   long rows, long dim) {
  for (long r = 0; r < rows; r++, g += dim, y += dim, dx += dim, low += dim) {
    float sum = 0, s = inv[r];
    for (long i = 0; i < dim; i++) sum += wide(g[i]) * wide(y[i]);
    sum /= dim;
    for (long i = 0; i < dim; i++) {
      float v = dx[i] + s * (wide(g[i]) - wide(y[i]) * sum);
      dx[i] = v;
      low[i] = narrow(v);
    }
  }
}

/* qkv [batch, slots, 3, heads, head] -> q, k, v [batch, heads, slots, head], q and k rotated. A head holds the first
 * members of all pairs, then the second ones (fast.py permutes the weight rows so). `back` goes the other way and
 * turns by the opposite angle. */
void split_heads(element *restrict qkv, element *restrict q, element *restrict k, element *restrict v, const float *restrict cosine,
                 const float *restrict sine, long batch, long slots, long heads, long head, int back) {
  long half = head / 2;
  element *part[3] = {q, k, v};
  for (long b = 0; b < batch; b++)
    for (long t = 0; t < slots; t++)
      for (int p = 0; p < 3; p++)
        for (long h = 0; h < heads; h++) {
          element *joined = qkv + (((b * slots + t) * 3 + p) * heads + h) * head;
          element *single = part[p] + ((b * heads + h) * slots + t) * head;
          element *restrict from = back ? single : joined, *restrict to = back ? joined : single;
          const float *restrict c = cosine + t * half, *restrict s = sine + t * half;
          if (p == 2) {
            memcpy(to, from, head * sizeof(element));
          } else if (back) {
            for (long i = 0; i < half; i++) {
              float e = wide(from[i]), o = wide(from[i + half]);
              to[i] = narrow(e * c[i] + o * s[i]);
              to[i + half] = narrow(o * c[i] - e * s[i]);
            }
          } else {
            for (long i = 0; i < half; i++) {
              float e = wide(from[i]), o = wide(from[i + half]);
              to[i] = narrow(e * c[i] - o * s[i]);
              to[i + half] = narrow(e * s[i] + o * c[i]);
            }
          }
        }
}

/* One part of the same by itself: columns [offset, offset + heads * head) of joined [batch, slots, width]. Here every
   sequence has rotations of its own, [batch, slots, head / 2]. */
void split_part(element *restrict joined, element *restrict part, const float *restrict cosine, const float *restrict sine, long batch,
                long slots, long heads, long head, long width, long offset, int back) {
  long half = head / 2;
  for (long b = 0; b < batch; b++)
    for (long t = 0; t < slots; t++)
      for (long h = 0; h < heads; h++) {
        element *j = joined + (b * slots + t) * width + offset + h * head, *p = part + ((b * heads + h) * slots + t) * head;
        element *restrict from = back ? p : j, *restrict to = back ? j : p;
        if (!cosine) {
          memcpy(to, from, head * sizeof(element));
          continue;
        }
        const float *restrict c = cosine + (b * slots + t) * half, *restrict s = sine + (b * slots + t) * half;
        float sign = back ? -1 : 1;
        for (long i = 0; i < half; i++) {
          float e = wide(from[i]), o = wide(from[i + half]);
          to[i] = narrow(e * c[i] - sign * o * s[i]);
          to[i + half] = narrow(sign * e * s[i] + o * c[i]);
        }
      }
}

/* one [batch, heads, slots, head] <-> joined [batch, slots, heads, head] */
void merge_heads(element *restrict joined, element *restrict single, long batch, long slots, long heads, long head, int back) {
  for (long b = 0; b < batch; b++)
    for (long t = 0; t < slots; t++)
      for (long h = 0; h < heads; h++) {
        element *j = joined + ((b * slots + t) * heads + h) * head, *s = single + ((b * heads + h) * slots + t) * head;
        memcpy(back ? s : j, back ? j : s, head * sizeof(element));
      }
}

/* s [count, slots, slots] in place: softmax over the first end[row] entries, zero behind them */
void softmax_forward(element *restrict s, const int32_t *restrict end, long count, long slots) {
  float e[4096];
  for (long c = 0; c < count; c++)
    for (long t = 0; t < slots; t++, s += slots) {
      long n = end[t];
      float top = -INFINITY, sum = 0;
      for (long i = 0; i < n; i++) top = fmaxf(top, wide(s[i]));
      for (long i = 0; i < n; i++) sum += e[i] = expf(wide(s[i]) - top);
      sum = 1 / sum;
      for (long i = 0; i < n; i++) s[i] = narrow(e[i] * sum);
      memset(s + n, 0, (slots - n) * sizeof(element));
    }
}

/* g [count, slots, slots] in place: gradient of the weights -> gradient of the scores */
void softmax_backward(const element *restrict p, element *restrict g, const int32_t *restrict end, long count, long slots) {
  for (long c = 0; c < count; c++)
    for (long t = 0; t < slots; t++, p += slots, g += slots) {
      long n = end[t];
      float sum = 0;
      for (long i = 0; i < n; i++) sum += wide(p[i]) * wide(g[i]);
      for (long i = 0; i < n; i++) g[i] = narrow(wide(p[i]) * (wide(g[i]) - sum));
      memset(g + n, 0, (slots - n) * sizeof(element));
    }
}

/* h [rows, 2, hidden] holds gate and up; y = silu(gate) * up */
void swiglu_forward(const element *restrict h, element *restrict y, long rows, long hidden) {
  for (long r = 0; r < rows; r++, h += 2 * hidden, y += hidden)
    for (long i = 0; i < hidden; i++) {
      float a = wide(h[i]);
      y[i] = narrow(a / (1 + expf(-a)) * wide(h[i + hidden]));
    }
}

/* h in place: becomes the gradient of gate and up */
void swiglu_backward(const element *restrict g, element *restrict h, long rows, long hidden) {
  for (long r = 0; r < rows; r++, g += hidden, h += 2 * hidden)
    for (long i = 0; i < hidden; i++) {
      float a = wide(h[i]), b = wide(h[i + hidden]), d = wide(g[i]), s = 1 / (1 + expf(-a));
      h[i] = narrow(d * b * s * (1 + a * (1 - s)));
      h[i + hidden] = narrow(d * a * s);
    }
}

/* logits [rows, width] in place: gradient of the mean cross-entropy; loss [rows] */
void cross_entropy(element *restrict logits, const int64_t *restrict target, float *restrict loss, long rows, long width) {
  float e[65536], scale = 1.0f / rows;
  for (long r = 0; r < rows; r++, logits += width) {
    float top = -INFINITY, sum = 0, own = wide(logits[target[r]]);
    for (long i = 0; i < width; i++) top = fmaxf(top, wide(logits[i]));
    for (long i = 0; i < width; i++) sum += e[i] = expf(wide(logits[i]) - top);
    loss[r] = logf(sum) + top - own;
    float s = scale / sum;
    for (long i = 0; i < width; i++) logits[i] = narrow(e[i] * s);
    logits[target[r]] = narrow(e[target[r]] * s - scale);
  }
}

// Attention inside groups of tokens, and its gradients.
//
// Windows, stripes and clusters differ in which tokens make up a group. An
// index map lays the tokens out in places, with -1 for padding; a group is a
// range of places. Groups that share places (clusters and their siblings)
// follow each other. What siblings need is copied into the caches, one head of
// one image at a time, and their results go from there to the map: nothing in
// between is as large as a map.
//
// Names: d channels of a head, n queries and l keys of a group, m tokens of
// its siblings. "Rows" have one token each, "columns" too, transposed.

#include <algorithm>
#include <type_traits>

#include "scratch.h"
#include "simd.h"

namespace mmattn {
namespace {

// Scores of so many queries are held at a time; more would leave the caches.
constexpr Index kMostRows = 128;
constexpr Index kTaps = 9;
constexpr double kLog2E = 1.4426950408889634;

// D is the channels of a head, or 0 for any.
template <typename T, int D>
struct Map {
  T* data;  // (images, tokens, parts, heads, d)
  Index tokens, parts, heads, any_d;

  Index d() const { return D ? D : any_d; }

  T* row(Index image, Index token, Index part, Index head) const {
    return data +
           (((image * tokens + token) * parts + part) * heads + head) * d();
  }
};

// Who attends to whom, in every image and head.
struct Groups {
  const std::int32_t* index;       // token in each place, or -1
  Index image_stride, head_stride;  // of the index map; 0 where all share it
  const std::int32_t* ranges;  // (count, 4): first place and the one after the
                               // last, of the queries and of the keys
  Index count, siblings;         // groups in all, and that share places
  const std::int32_t* regions;   // of each place; others are hidden, or null
  Index most_tokens, most_keys;  // of siblings, of a group
};

// What else there is; each may be null.
template <typename T>
struct Extras {
  const T* bias;     // (heads that take part, n, bias_row), times log2 e
  Index bias_row;
  const T* kernels;     // (10, heads, d): 3x3 taps for the values, then a bias
  Index height, width;  // of the stripe that the kernels run over
};

// Rows of whole vectors, in the caches.
template <typename T>
class Panel {
 public:
  Panel(Index rows, Index columns)
      : step(padded<T>(columns) + Simd<T>::width),
        data_(rows * step + 16, T(0)) {}
  T* operator[](Index i) { return data_.data() + i * step; }
  void clear() { std::fill(data_.begin(), data_.end(), T(0)); }
  const Index step;

 private:
  Buffer<T> data_;
};

// Copies n numbers times a factor, zeros from null.
template <typename T>
inline void copy(const T* from, Index n, T factor, T* to) {
  if (!from) {
    std::fill_n(to, n, T(0));
    return;
  }
  constexpr Index width = Simd<T>::width;
  Index i = 0;
  for (; i + width <= n; i += width)
    vector_at(to + i) = factor * vector_at(from + i);
  for (; i < n; ++i) to[i] = factor * from[i];
}

template <typename T>
struct Siblings {
  const Groups& groups;
  Index image, head, own_head;  // own: counted among those that take part
  const std::int32_t* index;
  const std::int32_t* ranges;
  Index first, tokens;

  // The `task`-th of all; heads change fastest, they share cache lines.
  Siblings(const Groups& groups, Index task, Index first_head,
           Index num_heads)
      : groups(groups) {
    const Index sets = groups.count / groups.siblings;
    own_head = task % num_heads;
    head = first_head + own_head;
    image = task / num_heads / sets;
    ranges = groups.ranges + task / num_heads % sets * groups.siblings * 4;
    index = groups.index + image * groups.image_stride +
            own_head * groups.head_stride;
    Index last = ranges[3];
    first = ranges[2];
    for (Index g = 1; g < groups.siblings; ++g) {
      first = std::min<Index>(first, ranges[4 * g + 2]);
      last = std::max<Index>(last, ranges[4 * g + 3]);
    }
    tokens = last - first;
  }

  // Asks for a part of all tokens before it is read: rows of a head lie too
  // far apart for the CPU to foresee them. (Inlined, since GCC drops calls
  // of functions that do nothing but this.)
  template <bool WRITE, typename U, int D>
  __attribute__((always_inline)) void prefetch(const Map<U, D>& map,
                                               Index part) const {
    constexpr Index line = 64 / sizeof(T);
    for (Index i = 0; i < tokens; ++i) {
      const Index token = index[first + i];
      if (token < 0) continue;
      const T* from = map.row(image, token, part, head);
      for (Index c = 0; c < map.d(); c += line)
        __builtin_prefetch(from + c, WRITE);
    }
  }

  // Where a part of a token lies; null for padding, which is zeros.
  template <int D>
  const T* find(const Map<const T, D>& map, Index part, Index i) const {
    const Index token = index[first + i];
    return token < 0 ? nullptr : map.row(image, token, part, head);
  }

  // Copies a part of all tokens, times a factor.
  template <int D>
  void read(const Map<const T, D>& map, Index part, T factor,
            Panel<T>& rows) const {
    for (Index i = 0; i < tokens; ++i)
      copy(find(map, part, i), map.d(), factor, rows[i]);
  }

  // The same, transposed.
  template <int D>
  void read_columns(const Map<const T, D>& map, Index part,
                    Panel<T>& columns) const {
    constexpr Index width = Simd<T>::width;
    const Index d = map.d();
    for (Index i = 0; i < tokens; i += width) {
      const T* from[width];
      for (Index j = 0; j < width; ++j)
        from[j] = i + j < tokens ? find(map, part, i + j) : nullptr;
      Index c = 0;
      for (; c + width <= d; c += width) {
        Vector<T> square[width];
        for (Index j = 0; j < width; ++j)
          square[j] = from[j] ? vector_at(from[j] + c) : Vector<T>{};
        transpose_square(square, columns[c] + i, columns.step);
      }
      for (; c < d; ++c)
        for (Index j = 0; j < width; ++j)
          columns[c][i + j] = from[j] ? from[j][c] : T(0);
    }
    // Behind the last, vectors of a group reach into this; its weights are
    // zero, and what was here before may not be finite.
    for (Index c = 0; c < d; ++c)
      vector_at(columns[c] + padded<T>(tokens)) = Vector<T>{};
  }

  // Copies rows, times a factor, to where a part of the tokens lies.
  template <int D>
  void write(const Map<T, D>& map, Index part, T factor,
             Panel<T>& rows) const {
    for (Index i = 0; i < tokens; ++i) {
      const Index token = index[first + i];
      if (token >= 0)
        copy<T>(rows[i], map.d(), factor, map.row(image, token, part, head));
    }
  }
};

// Some queries of a group: all its keys, at most kMostRows queries.
struct Block {
  Index query, key;  // first ones, counted among the siblings
  Index n, l;
  Index number;   // of the first query in its group
  Index queries;  // of the group
};

template <typename Visit>
void for_blocks(const std::int32_t* ranges, Index siblings, Index first,
                Visit visit) {
  for (Index g = 0; g < siblings; ++g, ranges += 4) {
    const Index n = ranges[1] - ranges[0];
    for (Index i = 0; i < n; i += kMostRows)
      visit(Block{ranges[0] - first + i, ranges[2] - first,
                  std::min(n - i, kMostRows), ranges[3] - ranges[2], i, n});
  }
}

template <typename T>
void hide(const std::int32_t* regions, const Block& block, Panel<T>& scores) {
  const std::int32_t* of_keys = regions + block.key;
  if (std::all_of(of_keys, of_keys + block.l,
                  [&](std::int32_t x) { return x == of_keys[0]; }))
    return;
  for (Index i = 0; i < block.n; ++i) {
    const std::int32_t own = regions[block.query + i];
    T* s = scores[i];
    for (Index j = 0; j < block.l; ++j)
      s[j] += of_keys[j] == own ? T(0) : T(-INFINITY);  // keeps NaN and inf
  }
}

// Weights of the keys; those of query i are yet to be multiplied by factor i.
template <typename T>
void weigh(const Siblings<T>& siblings, const Block& block,
           const Extras<T>& extras, Index d, Panel<T>& queries,
           Panel<T>& key_columns, Panel<T>& scores, T* factors) {
  constexpr Index width = Simd<T>::width;
  const Index l = block.l, end = padded<T>(l);
  multiply<T, false>(block.n, l, d, queries[block.query], queries.step, 1,
                     key_columns[0] + block.key, key_columns.step, scores[0],
                     scores.step);
  if (siblings.groups.regions)
    hide(siblings.groups.regions + siblings.first, block, scores);
  const T* bias = extras.bias;
  if (bias)
    bias +=
        (siblings.own_head * block.queries + block.number) * extras.bias_row;
  for (Index i = 0; i < block.n; ++i) {
    T* s = scores[i];
    for (Index j = l; j < end; ++j) s[j] = T(-INFINITY);
    Vector<T> most = Vector<T>{} - T(INFINITY);
    for (Index j = 0; j < end; j += width) {
      Vector<T> score = vector_at(s + j);
      if (bias) vector_at(s + j) = score += vector_at(bias + j);
      most = larger<T>(most, score);
    }
    if (bias) bias += extras.bias_row;
    const T top = largest_of<T>(most);
    Vector<T> sum{};
    for (Index j = 0; j < end; j += width) {
      const Vector<T> w = power_of_two(vector_at(s + j) - top);
      vector_at(s + j) = w;
      sum += w;
    }
    factors[i] = 1 / sum_of<T>(sum);
  }
}

// Calls `visit(tap, tokens away)` for the taps around a token of a stripe that
// lie inside. Unrolled, so that what stands for a tap can stay in a register.
template <typename Visit>
inline void for_taps(Index height, Index width, Index y, Index x,
                     Visit visit) {
#pragma GCC unroll 3
  for (Index v = 0; v < 3; ++v) {
    if (y + v < 1 || y + v > height) continue;
    const Index away = (v - 1) * width;
    if (x > 0) visit(3 * v, away - 1);
    visit(3 * v + 1, away);
    if (x + 1 < width) visit(3 * v + 2, away + 1);
  }
}

// Adds the 3x3 convolution of each channel of a stripe, zeros around it.
// `turned` takes the taps in reverse, for the gradient.
template <typename T>
void convolve(const Extras<T>& extras, Index d, Panel<T>& taps, bool turned,
              Panel<T>& in, Panel<T>& out) {
  for (Index c = 0; c < d; c += Simd<T>::width) {
    Vector<T> tap[kTaps];
#pragma GCC unroll 9
    for (Index k = 0; k < kTaps; ++k)
      tap[k] = vector_at(taps[turned ? kTaps - 1 - k : k] + c);
    Index i = 0;
    for (Index y = 0; y < extras.height; ++y)
      for (Index x = 0; x < extras.width; ++x, ++i) {
        Vector<T> sum = vector_at(out[i] + c);
        for_taps(extras.height, extras.width, y, x, [&](Index k, Index away) {
          sum += tap[k] * vector_at(in[i + away] + c);
        });
        vector_at(out[i] + c) = sum;
      }
  }
}

// The gradients of the taps and of the bias.
template <typename T>
void convolution_gradients(const Extras<T>& extras, Index d, Panel<T>& in,
                           Panel<T>& grad, Panel<T>& sums) {
  for (Index c = 0; c < d; c += Simd<T>::width) {
    Vector<T> sum[kTaps + 1] = {};
    Index i = 0;
    for (Index y = 0; y < extras.height; ++y)
      for (Index x = 0; x < extras.width; ++x, ++i) {
        const Vector<T> g = vector_at(grad[i] + c);
        for_taps(extras.height, extras.width, y, x, [&](Index k, Index away) {
          sum[k] += g * vector_at(in[i + away] + c);
        });
        sum[kTaps] += g;
      }
#pragma GCC unroll 10
    for (Index k = 0; k <= kTaps; ++k) vector_at(sums[k] + c) = sum[k];
  }
}

template <typename T>
void read_taps(const Extras<T>& extras, Index heads, Index head, Index d,
               Panel<T>& taps) {
  for (Index k = 0; k <= kTaps; ++k)
    std::copy_n(extras.kernels + (k * heads + head) * d, d, taps[k]);
}

template <typename T>
void scale_rows(const T* factors, Index n, Index columns, T* rows,
                Index step) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < columns; j += Simd<T>::width)
      vector_at(rows + i * step + j) *= factors[i];
}

template <typename T, int D>
void attend(const Map<const T, D>& qkv, const Map<T, D>& out,
            const Groups& groups, const Extras<T>& extras, T scale,
            Index images, Index first_head, Index num_heads, Index threads) {
  const Index tasks = images * num_heads * groups.count / groups.siblings;
  share(tasks, threads, [&](Index, Index first_task, Index end_task) {
    const Index d = qkv.d(), m = groups.most_tokens;
    Panel<T> q(m, d), k_columns(d, m), v(m, d), mixed(m, d);
    Panel<T> scores(std::min(m, kMostRows), groups.most_keys);
    Panel<T> taps(kTaps + 1, d);
    T factors[kMostRows];
    for (Index task = first_task; task < end_task; ++task) {
      const Siblings<T> siblings(groups, task, first_head, num_heads);
      const Siblings<T> next(groups, std::min(task + 1, end_task - 1),
                           first_head, num_heads);
      siblings.read(qkv, 0, scale * T(kLog2E), q);
      siblings.read_columns(qkv, 1, k_columns);
      next.template prefetch<false>(qkv, 0);
      siblings.read(qkv, 2, 1, v);
      next.template prefetch<false>(qkv, 1);
      siblings.template prefetch<true>(out, 0);
      for_blocks(
          siblings.ranges, groups.siblings, siblings.first,
          [&](const Block& block) {
            weigh(siblings, block, extras, d, q, k_columns, scores, factors);
            multiply<T, false>(block.n, d, block.l, scores[0], scores.step, 1,
                               v[block.key], v.step, mixed[block.query],
                               mixed.step);
            scale_rows(factors, block.n, d, mixed[block.query], mixed.step);
          });
      if (extras.kernels) {
        read_taps(extras, qkv.heads, siblings.head, d, taps);
        for (Index i = 0; i < siblings.tokens; ++i)
          for (Index c = 0; c < d; ++c) mixed[i][c] += taps[kTaps][c];
        convolve(extras, d, taps, false, v, mixed);
      }
      next.template prefetch<false>(qkv, 2);
      siblings.write(out, 0, 1, mixed);
    }
  });
}

// Gradients; the sums have one row for each thread, null if not asked for.
template <typename T>
struct Sums {
  T* bias;     // (threads, heads that take part, n, bias_row)
  T* kernels;  // (threads, 10, heads, d)
};

template <typename T, int D>
void differentiate(const Map<const T, D>& qkv, const Map<const T, D>& grad_out,
                   const Map<T, D>& grad_qkv, const Groups& groups,
                   const Extras<T>& extras, const Sums<T>& sums, T scale,
                   Index images, Index first_head, Index num_heads,
                   Index threads) {
  constexpr Index width = Simd<T>::width;
  const Index tasks = images * num_heads * groups.count / groups.siblings;
  const Index of_bias =
      num_heads * (groups.ranges[1] - groups.ranges[0]) * extras.bias_row;
  const Index of_kernels = (kTaps + 1) * qkv.heads * qkv.d();
  share(tasks, threads, [&](Index thread, Index first_task, Index end_task) {
    const Index d = qkv.d(), m = groups.most_tokens;
    Panel<T> q(m, d), k(m, d), v(m, d), k_columns(d, m), v_columns(d, m);
    Panel<T> grad(m, d), grad_q(m, d), grad_k(m, d), grad_v(m, d);
    const Index n = std::min(m, kMostRows);
    Panel<T> weights(n, groups.most_keys), grads(n, groups.most_keys);
    Panel<T> taps(kTaps + 1, d), grad_taps(kTaps + 1, d);
    T factors[kMostRows];
    T* bias = sums.bias ? sums.bias + thread * of_bias : nullptr;
    T* kernels = sums.kernels ? sums.kernels + thread * of_kernels : nullptr;
    for (Index task = first_task; task < end_task; ++task) {
      const Siblings<T> siblings(groups, task, first_head, num_heads);
      const Siblings<T> next(groups, std::min(task + 1, end_task - 1),
                           first_head, num_heads);
      siblings.read(qkv, 0, scale * T(kLog2E), q);
      siblings.read(qkv, 1, 1, k);
      siblings.read_columns(qkv, 1, k_columns);
      siblings.read_columns(qkv, 2, v_columns);
      if (kernels) siblings.read(qkv, 2, 1, v);
      siblings.read(grad_out, 0, 1, grad);
      next.template prefetch<false>(grad_out, 0);
      for (Index part = 0; part < 3; ++part) {
        siblings.template prefetch<true>(grad_qkv, part);
        next.template prefetch<false>(qkv, part);
      }
      grad_k.clear();
      grad_v.clear();
      for_blocks(
          siblings.ranges, groups.siblings, siblings.first,
          [&](const Block& block) {
            const Index l = block.l, end = padded<T>(l);
            weigh(siblings, block, extras, d, q, k_columns, weights, factors);
            scale_rows(factors, block.n, end, weights[0], weights.step);
            multiply<T, true>(l, d, block.n, weights[0], 1, weights.step,
                              grad[block.query], grad.step, grad_v[block.key],
                              grad_v.step);
            multiply<T, false>(block.n, l, d, grad[block.query], grad.step, 1,
                               v_columns[0] + block.key, v_columns.step,
                               grads[0], grads.step);
            for (Index i = 0; i < block.n; ++i) {
              std::fill(grads[i] + l, grads[i] + end, T(0));
              Vector<T> sum{};
              for (Index j = 0; j < end; j += width)
                sum += vector_at(weights[i] + j) * vector_at(grads[i] + j);
              const T mean = sum_of<T>(sum);
              for (Index j = 0; j < end; j += width)
                vector_at(grads[i] + j) = vector_at(weights[i] + j) *
                                          (vector_at(grads[i] + j) - mean);
            }
            if (bias) {
              T* to =
                  bias + (siblings.own_head * block.queries + block.number) *
                             extras.bias_row;
              for (Index i = 0; i < block.n; ++i, to += extras.bias_row)
                for (Index j = 0; j < end; j += width)
                  vector_at(to + j) += vector_at(grads[i] + j);
            }
            multiply<T, false>(block.n, d, l, grads[0], grads.step, 1,
                               k[block.key], k.step, grad_q[block.query],
                               grad_q.step);
            multiply<T, true>(l, d, block.n, grads[0], 1, grads.step,
                              q[block.query], q.step, grad_k[block.key],
                              grad_k.step);
          });
      if (extras.kernels) {
        read_taps(extras, qkv.heads, siblings.head, d, taps);
        convolve(extras, d, taps, true, grad, grad_v);
      }
      if (kernels) {
        convolution_gradients(extras, d, v, grad, grad_taps);
        for (Index tap = 0; tap <= kTaps; ++tap) {
          T* to = kernels + (tap * qkv.heads + siblings.head) * d;
          for (Index c = 0; c < d; ++c) to[c] += grad_taps[tap][c];
        }
      }
      siblings.write(grad_qkv, 0, scale, grad_q);
      // The queries hold the factor of the powers of two.
      siblings.write(grad_qkv, 1, T(1 / kLog2E), grad_k);
      siblings.write(grad_qkv, 2, 1, grad_v);
    }
  });
}

// Calls a function with the channels of a head as a constant, where they are
// those of most published models: loops over them are then unrolled.
template <typename Run>
Index with_channels(Index d, Run run) {
  return guarded([&] {
    if (d == 32)
      run(std::integral_constant<int, 32>());
    else
      run(std::integral_constant<int, 0>());
  });
}

}  // namespace
}  // namespace mmattn

using mmattn::Index;

// What both functions take last.
#define MMATTN_COMMON_PARAMETERS(T)                                          \
  const std::int32_t *index, Index image_stride, Index head_stride,          \
      const std::int32_t *ranges, Index count, Index siblings,               \
      Index most_tokens, Index most_keys, const std::int32_t *regions,       \
      const T *bias, Index bias_row, const T *kernels, Index height,         \
      Index width, double scale, Index images, Index tokens, Index heads,    \
      Index d, Index first_head, Index num_heads, Index threads

#define MMATTN_GROUPS                                                       \
  {index, image_stride, head_stride, ranges, count, siblings, regions,      \
   most_tokens, most_keys}

#define MMATTN_ATTENTION(T, NAME)                                           \
  extern "C" MMATTN_EXPORT Index mmattn_attend_##NAME(                      \
      const T* qkv, T* out, MMATTN_COMMON_PARAMETERS(T)) {                  \
    using namespace mmattn;                                                 \
    return with_channels(d, [&](auto D) {                                   \
      attend<T, D>({qkv, tokens, 3, heads, d}, {out, tokens, 1, heads, d},  \
                   MMATTN_GROUPS, {bias, bias_row, kernels, height, width}, \
                   T(scale), images, first_head, num_heads, threads);       \
    });                                                                     \
  }                                                                         \
  extern "C" MMATTN_EXPORT Index mmattn_attend_backward_##NAME(             \
      const T* qkv, const T* grad_out, T* grad_qkv, T* of_bias,             \
      T* of_kernels, MMATTN_COMMON_PARAMETERS(T)) {                         \
    using namespace mmattn;                                                 \
    return with_channels(d, [&](auto D) {                                   \
      differentiate<T, D>(                                                  \
          {qkv, tokens, 3, heads, d}, {grad_out, tokens, 1, heads, d},      \
          {grad_qkv, tokens, 3, heads, d}, MMATTN_GROUPS,                   \
          {bias, bias_row, kernels, height, width}, {of_bias, of_kernels},  \
          T(scale), images, first_head, num_heads, threads);                \
    });                                                                     \
  }

MMATTN_ATTENTION(float, f32)
MMATTN_ATTENTION(double, f64)

// Balanced clusters: one problem after the other, group by group.
//
// A group's tokens lie next to each other, as rows of d channels that are
// padded with zeros to a multiple of a vector. It is halved into the other
// one of two copies, and its halves are halved while they are in the caches.

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "scratch.h"
#include "simd.h"

namespace mmattn {
namespace {

constexpr Index kBlock = 128;  // tokens whose weights are held at a time

// What orders positive numbers as the numbers themselves do.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <typename T>
struct Ranked {
  Bits<T> key;
  std::uint32_t place;
};

// What is to be clustered, of any strides.
template <typename T>
struct Features {
  const T* data;
  Index images, heads, tokens, channels;
  Index image_stride, head_stride, token_stride, channel_stride;
};

// The tokens of one problem, in one order.
template <typename T>
struct Tokens {
  T* units;       // (N, row), directions
  T* lengths;     // (N, )
  Index* places;  // (N, ), in raster order
};

// Options, and memory for what is needed meanwhile.
template <typename T>
struct Problem {
  Index row;  // channels of a token, padded
  Index iterations;
  T sharpness;    // temperature, for powers of two
  T* centroids;   // (2, row)
  T* partial;     // (2, row)
  T* difference;  // (row, )
  T* weights;     // (2, kBlock)
  Ranked<T>* ranked;
  Ranked<T>* spare;
};

// Sum of each of as many vectors as a vector has lanes, one in each lane, all
// added up in the same order: equal tokens stay equal.
template <typename T, int HALF = Simd<T>::width / 2>
inline Vector<T> sums_of(Vector<T>* x) {
  constexpr int width = Simd<T>::width;
  if constexpr (HALF == 0) {
    return x[0];
  } else {
    decltype(x[0] < x[0]) kept{}, moved{};
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) {
      const int from = i & HALF ? width : 0;
      kept[i] = from + i;
      moved[i] = from + (i ^ HALF);
    }
#pragma GCC unroll 16
    for (int i = 0; i < HALF; ++i)
      x[i] = __builtin_shuffle(x[i], x[i + HALF], kept) +
             __builtin_shuffle(x[i], x[i + HALF], moved);
    return sums_of<T, HALF / 2>(x);
  }
}

// Inner products of a vector's width of tokens with a direction.
template <typename T>
inline Vector<T> similarities(const T* units, Index row, const T* direction) {
  constexpr int width = Simd<T>::width;
  Vector<T> sums[width] = {};
  for (Index j = 0; j < row; j += width) {
    const Vector<T> part = vector_at(direction + j);
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i)
      sums[i] += vector_at(units + i * row + j) * part;
  }
  return sums_of<T>(sums);
}

template <typename T>
void normalise(T* x, Index row) {
  constexpr int width = Simd<T>::width;
  Vector<T> squares{};
  for (Index j = 0; j < row; j += width)
    squares += vector_at(x + j) * vector_at(x + j);
  const T length = std::max(std::sqrt(sum_of<T>(squares)), T(1e-12));
  for (Index j = 0; j < row; j += width) vector_at(x + j) /= length;
}

// sums += weights @ units. Sums of blocks are added up, for precision.
template <typename T>
void add_weighted(const Problem<T>& problem, Index num_sums, Index num_tokens,
                  const T* weights, const T* units, T* sums) {
  const Index size = num_sums * problem.row;
  multiply<T, false>(num_sums, problem.row, num_tokens, weights, kBlock, 1,
                     units, problem.row, problem.partial, problem.row);
  for (Index j = 0; j < size; ++j) sums[j] += problem.partial[j];
}

// The directions of the means of both halves.
template <typename T>
void start(const Problem<T>& problem, const Tokens<T>& tokens, Index n) {
  const Index row = problem.row, middle = n - n / 2;
  std::fill_n(problem.centroids, 2 * row, T(0));
  for (Index half = 0; half < 2; ++half) {
    T* centroid = problem.centroids + half * row;
    const Index stop = half ? n : middle;
    for (Index i = half ? middle : 0; i < stop; i += kBlock)
      add_weighted(problem, 1, std::min(kBlock, stop - i), tokens.lengths + i,
                   tokens.units + i * row, centroid);
    normalise(centroid, row);
  }
}

// The directions of the sums of the tokens, softly assigned to the last ones.
template <typename T>
void refine(const Problem<T>& problem, const Tokens<T>& tokens, Index n) {
  constexpr int width = Simd<T>::width;
  const Index row = problem.row;
  for (Index j = 0; j < row; ++j)
    problem.difference[j] = problem.centroids[j] - problem.centroids[row + j];
  std::fill_n(problem.centroids, 2 * row, T(0));
  T* weights = problem.weights;
  for (Index i = 0; i < n; i += kBlock) {
    const Index num_tokens = std::min(kBlock, n - i);
    const T* units = tokens.units + i * row;
    for (Index k = 0; k < num_tokens; k += width) {
      // A softmax over two.
      const Vector<T> logit =
          problem.sharpness *
          similarities(units + k * row, row, problem.difference);
      const Vector<T> lesser = power_of_two(logit > 0 ? -logit : logit);
      const Vector<T> length = vector_at(tokens.lengths + i + k);
      const Vector<T> more = length / (1 + lesser), less = more * lesser;
      vector_at(weights + k) = logit > 0 ? more : less;
      vector_at(weights + kBlock + k) = logit > 0 ? less : more;
    }
    add_weighted(problem, 2, num_tokens, weights, units, problem.centroids);
  }
  normalise(problem.centroids, row);
  normalise(problem.centroids + row, row);
}

// What the tokens are sorted by.
template <typename T>
void rate(const Problem<T>& problem, const Tokens<T>& tokens, Index n) {
  constexpr int width = Simd<T>::width;
  constexpr T least = std::numeric_limits<T>::epsilon();
  const Index row = problem.row;
  for (Index i = 0; i < n; i += width) {
    const T* units = tokens.units + i * row;
    const Vector<T> first = 1 + similarities(units, row, problem.centroids);
    const Vector<T> second =
        1 + similarities(units, row, problem.centroids + row);
    // Rounding can take a similarity below -1.
    const Vector<T> ratios = larger<T>(first, Vector<T>{} + least) /
                             larger<T>(second, Vector<T>{} + least);
    for (Index k = 0; k < std::min<Index>(width, n - i); ++k) {
      const T ratio = ratios[k];
      std::memcpy(&problem.ranked[i + k].key, &ratio, sizeof(T));
      problem.ranked[i + k].place = static_cast<std::uint32_t>(i + k);
    }
  }
}

// Sorts stably, by one digit of the bits after the other. Returns which of
// both holds the result.
template <typename T, int DIGITS>
Ranked<T>* sort_by_digits(Ranked<T>* items, Ranked<T>* spare, Index n) {
  constexpr int most = (8 * sizeof(T) + DIGITS - 1) / DIGITS;
  Bits<T> low = items[0].key, high = low;
  for (Index i = 1; i < n; ++i) {
    low = std::min(low, items[i].key);
    high = std::max(high, items[i].key);
  }
  int bits = 1;
  for (Bits<T> range = (high - low) >> 1; range; range >>= 1) ++bits;
  const int width = (bits + DIGITS - 1) / DIGITS;
  const Bits<T> last = (Bits<T>(1) << width) - 1;
  std::uint32_t starts[DIGITS][1 << most];
  for (int k = 0; k < DIGITS; ++k) std::fill_n(starts[k], last + 1, 0);
  for (Index i = 0; i < n; ++i)
#pragma GCC unroll 8
    for (int k = 0; k < DIGITS; ++k)
      ++starts[k][(items[i].key - low) >> (k * width) & last];
  for (int k = 0; k < DIGITS; ++k) {
    std::uint32_t start = 0;
    for (Bits<T> digit = 0; digit <= last; ++digit)
      start += std::exchange(starts[k][digit], start);
    for (Index i = 0; i < n; ++i)
      spare[starts[k][(items[i].key - low) >> (k * width) & last]++] =
          items[i];
    std::swap(items, spare);
  }
  return items;
}

template <typename T>
const Ranked<T>* sorted(const Problem<T>& problem, Index n) {
  if constexpr (sizeof(T) == 8)
    return sort_by_digits<T, 6>(problem.ranked, problem.spare, n);
  // Of few tokens the counts of long digits take longest.
  return n < 256 ? sort_by_digits<T, 4>(problem.ranked, problem.spare, n)
                 : sort_by_digits<T, 3>(problem.ranked, problem.spare, n);
}

// Halves n tokens `levels` times. Each time they move from the first tokens
// to the second; after the last only their places are of interest.
template <typename T>
void bisect(const Problem<T>& problem, Tokens<T> from, Tokens<T> to, Index n,
            Index levels) {
  const Index row = problem.row;
  start(problem, from, n);
  for (Index i = 0; i < problem.iterations; ++i) refine(problem, from, n);
  rate(problem, from, n);
  const Ranked<T>* order = sorted(problem, n);
  for (Index i = 0; i < n; ++i) to.places[i] = from.places[order[i].place];
  if (levels == 1) return;
  for (Index i = 0; i < n; ++i) {
    const Index place = order[i].place;
    to.lengths[i] = from.lengths[place];
    for (Index j = 0; j < row; j += Simd<T>::width)
      vector_at(to.units + i * row + j) =
          vector_at(from.units + place * row + j);
  }
  const Index middle = n - n / 2;
  bisect(problem, to, from, middle, levels - 1);
  const auto rest = [=](const Tokens<T>& x) {
    return Tokens<T>{x.units + middle * row, x.lengths + middle,
                     x.places + middle};
  };
  bisect(problem, rest(to), rest(from), n - middle, levels - 1);
}

// Reads the directions and lengths of the tokens. False if there are numbers
// that are not finite, which leave no order to find.
template <typename T>
bool read(const Features<T>& features, Index problem, Index row,
          const Tokens<T>& tokens) {
  constexpr int width = Simd<T>::width;
  const Index N = features.tokens, d = features.channels;
  const Index step = features.channel_stride;
  const T* start = features.data +
                   problem / features.heads * features.image_stride +
                   problem % features.heads * features.head_stride;
  Vector<T> peaks{}, finite{};
  for (Index i = 0; i < N; ++i) {
    const T* token = start + i * features.token_stride;
    T* unit = tokens.units + i * row;
    Index next = 0;
    if (step == 1)
      for (; next + width <= d; next += width)
        vector_at(unit + next) = vector_at(token + next);
    for (; next < d; ++next) unit[next] = token[next * step];
    for (; next < row; ++next) unit[next] = 0;
    for (Index j = 0; j < row; j += width) {
      const Vector<T> part = vector_at(unit + j);
      peaks = larger<T>(larger<T>(part, -part), peaks);
      finite += part * 0;  // else NaN
    }
  }
  if (sum_of<T>(finite) != 0) return false;
  // Directions alone count; at this scale no square over- or underflows.
  const T peak = std::max(largest_of<T>(peaks), std::numeric_limits<T>::min());
  const int exponent = std::numeric_limits<T>::max_exponent - 2;
  const T scale = std::ldexp(T(1), -std::min(std::ilogb(peak), exponent));
  for (Index i = 0; i < N; i += width) {
    T* units = tokens.units + i * row;
    Vector<T> squares[width] = {};
    for (Index j = 0; j < row; j += width)
#pragma GCC unroll 16
      for (int k = 0; k < width; ++k) {
        const Vector<T> part = vector_at(units + k * row + j) * scale;
        squares[k] += part * part;
      }
    Vector<T> lengths = sums_of<T>(squares);
    for (int k = 0; k < width; ++k) lengths[k] = std::sqrt(lengths[k]);
    vector_at(tokens.lengths + i) = lengths;
    const Vector<T> inverse = 1 / larger<T>(lengths, Vector<T>{} + T(1e-12));
    for (int k = 0; k < width; ++k)
      for (Index j = 0; j < row; j += width)
        vector_at(units + k * row + j) =
            vector_at(units + k * row + j) * scale * inverse[k];
  }
  for (Index i = 0; i < N; ++i) tokens.places[i] = i;
  return true;
}

template <typename T>
void balanced_clusters(const Features<T>& features, Index* order, Index levels,
                       Index iterations, T temperature, Index threads) {
  const Index N = features.tokens, row = padded<T>(features.channels);
  const Index size = N + Simd<T>::width;
  const Index problems = features.images * features.heads;
  threads = std::max<Index>(1, std::min(threads, problems));
  share(problems, threads, [&](Index, Index first, Index end) {
    // Whole vectors of tokens are read, so that some lie behind the last.
    Buffer<T> units(2 * size * row, T(0)), lengths(2 * size, T(0));
    Buffer<T> sums(5 * row), weights(2 * kBlock);
    Buffer<Index> places(N);
    Buffer<Ranked<T>> ranked(2 * N);
    const Problem<T> problem{row,
                             iterations,
                             temperature * T(1.4426950408889634),  // 1 / ln 2
                             sums.data(),
                             sums.data() + 2 * row,
                             sums.data() + 4 * row,
                             weights.data(),
                             ranked.data(),
                             ranked.data() + N};
    for (Index g = first; g < end; ++g) {
      Index* found = order + g * N;
      // After an even number of moves tokens are where they came from.
      const bool even = levels % 2 == 0;
      const Tokens<T> from{units.data(), lengths.data(),
                           even ? found : places.data()};
      const Tokens<T> to{units.data() + size * row, lengths.data() + size,
                         even ? places.data() : found};
      if (levels > 0 && read(features, g, row, from))
        bisect(problem, from, to, N, levels);
      else
        for (Index i = 0; i < N; ++i) found[i] = i;
    }
  });
}

}  // namespace
}  // namespace mmattn

#define MMATTN_BALANCED_CLUSTERS(T, NAME)                                 \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_balanced_clusters_##NAME( \
      const T* features, mmattn::Index* order, mmattn::Index images,      \
      mmattn::Index heads, mmattn::Index tokens, mmattn::Index channels,  \
      mmattn::Index image_stride, mmattn::Index head_stride,              \
      mmattn::Index token_stride, mmattn::Index channel_stride,           \
      mmattn::Index levels, mmattn::Index iterations, double temperature, \
      mmattn::Index threads) {                                            \
    return mmattn::guarded([&] {                                          \
      mmattn::balanced_clusters<T>(                                       \
          {features, images, heads, tokens, channels, image_stride,       \
           head_stride, token_stride, channel_stride},                    \
          order, levels, iterations, T(temperature), threads);            \
    });                                                                   \
  }

MMATTN_BALANCED_CLUSTERS(float, f32)
MMATTN_BALANCED_CLUSTERS(double, f64)
